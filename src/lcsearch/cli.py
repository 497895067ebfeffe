"""The command line. Everything heavy is imported inside a command: `lcsearch --help` answers at once.

Exit codes: 0 done, 1 the sweep failed, 2 a file (or option) is wrong or an extra is missing, 3 the machine is
not as needed, 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from lcsearch.errors import EnvironmentProblem, LcsearchError
from lcsearch.extras import MissingExtra

app = typer.Typer(
    name="lcsearch",
    help="Hyperparameter sweeps that stop hopeless trials, and say why.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich costs a tenth of a second; help does without
)

File = Annotated[Path, typer.Argument(help="The sweep file.", metavar="FILE")]


@contextmanager
def _told_plainly() -> Iterator[None]:
    """Expected errors end in one message and their exit code, never in a traceback."""
    try:
        yield
    except LcsearchError as error:
        _complain(error)
        missing = isinstance(error, EnvironmentProblem) and not isinstance(error, MissingExtra)
        raise typer.Exit(3 if missing else 2) from None
    except OSError as error:  # a disk that is full, a file that is somebody else's
        said = f"expected files that lcsearch can read and write, got {error.strerror or error}."
        _complain(f"{error.filename}: {said}" if error.filename else said)
        raise typer.Exit(3) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _complain(text: object) -> None:
    from lcsearch.terminal import say

    say(str(text), sys.stderr)


def main() -> None:
    """The `lcsearch` command."""
    app(prog_name="lcsearch")


def _version(asked: bool) -> None:
    if asked:
        from lcsearch import __version__

        print(f"lcsearch {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    pass


@app.command()
def init(
    file: Annotated[Path, typer.Argument(help="Where to write it.", metavar="FILE")] = Path("sweep.yaml"),
) -> None:
    """Write a sweep file to start from.

    Its comments explain it, and the objective beside it trains something small.
    """
    with _told_plainly():
        import shlex

        from lcsearch.sweep.spec.starter import write
        from lcsearch.terminal import say

        for path in write(file):
            say(f"wrote {path}")
        say(f"next: lcsearch plan {shlex.quote(str(file))}, then lcsearch run {shlex.quote(str(file))}")


Overrides = Annotated[
    list[str] | None, typer.Argument(help="In place of the file's: key.sub=value ...", metavar="[KEY=VALUE]...")
]
Seed = Annotated[int | None, typer.Option(help="In place of the file's.")]
Trials = Annotated[int | None, typer.Option(help="In place of the file's.")]
Workers = Annotated[int | None, typer.Option(help="In place of the file's.")]
Pruner = Annotated[str | None, typer.Option(help="curve, none, median or hyperband.")]


@app.command()
def validate(
    file: File,
    overrides: Overrides = None,
    seed: Seed = None,
    trials: Trials = None,
    workers: Workers = None,
    pruner: Pruner = None,
) -> None:
    """Check a sweep file; starts nothing.

    Every error is told at once.
    """
    with _told_plainly():
        from lcsearch.sweep.runtime.preflight import check_program
        from lcsearch.sweep.spec.load import load
        from lcsearch.sweep.spec.strict import is_plain
        from lcsearch.terminal import say

        options = {"seed": seed, "trials": trials, "workers": workers, "pruner": pruner}
        loaded = load(file).override(overrides or (), **options)
        sweep, command = loaded.file, loaded.file.objective.command
        if command is not None and sweep.backend.address == "local":
            check_program(command[0], loaded.path.parent)
        searched = [k for k, p in sweep.space.items() if not is_plain(p)]
        n, text = len(searched), f"{sweep.budget.trials} trials of {sweep.max_steps} {sweep.step}s"
        say(f"{file}: fine: {text} over {n} parameter{'s' * (n != 1)}")
        unused = [name for name in searched if command and not any(f"{{{name}}}" in part for part in command)]
        if unused:
            text = f"{', '.join(unused)}: searched, and the command has no {{{unused[0]}}}"
            say(f"! {text}; does the program read LCSEARCH_PARAMS?")
        if sweep.budget.idle_stop_when:
            say(f"! {sweep.budget.idle_stop_when}")
        words = _typed(file, overrides, options)
        say(f"next: lcsearch plan {words}, then lcsearch run {words}")


@app.command()
def plan(
    file: File,
    overrides: Overrides = None,
    folder: Annotated[Path | None, typer.Option(help="Where an earlier run may lie. [default: runs/NAME]")] = None,
    seed: Seed = None,
    trials: Trials = None,
    workers: Workers = None,
    pruner: Pruner = None,
) -> None:
    """Say what a sweep would cost; starts nothing.

    The resolved file, least and most compute, and what holds a stop.
    """
    with _told_plainly():
        from lcsearch.sweep.spec.load import load
        from lcsearch.sweep.store.folder import RunFolder
        from lcsearch.sweep.views.plan import describe
        from lcsearch.terminal import say

        options = {"seed": seed, "trials": trials, "workers": workers, "pruner": pruner}
        sweep = load(file).override(overrides or (), **options)
        say(describe(sweep, RunFolder((folder or Path("runs") / sweep.file.name).resolve())))
        say(f"next: lcsearch run {_typed(file, overrides, {**options, 'folder': folder})}")


def _typed(file: Path, overrides: Sequence[str] | None, options: Mapping[str, object]) -> str:
    """What the next command takes as this one did."""
    import shlex

    given = [word for name, value in options.items() if value is not None for word in (f"--{name}", str(value))]
    return shlex.join([str(file), *(overrides or ()), *given])


@app.command()
def run(
    file: File,
    overrides: Overrides = None,
    folder: Annotated[Path | None, typer.Option(help="Where the run lies. [default: runs/NAME]")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over; the old run is kept aside.")] = False,
    join: Annotated[bool, typer.Option("--join", help="Work along with other machines on one study.")] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="With --resume: run the failed trials again, after a mend.")
    ] = False,
    seed: Seed = None,
    trials: Trials = None,
    workers: Workers = None,
    pruner: Pruner = None,
    events: Annotated[bool, typer.Option("--json", help="Tell programs: one JSON object a line.")] = False,
) -> None:
    """Train a sweep, stopping hopeless trials.

    Ctrl-C once ends the workers at their next report (go on with --resume), twice kills them.
    """
    with _told_plainly(), ExitStack() as stack:
        from lcsearch.sweep.monitor.state import StateReader
        from lcsearch.sweep.monitor.view import View
        from lcsearch.sweep.run import run as launch
        from lcsearch.sweep.spec.model import SweepFile
        from lcsearch.sweep.store.folder import RunFolder
        from lcsearch.sweep.views.json_lines import JsonView, standard_output
        from lcsearch.sweep.views.live import make_view
        from lcsearch.sweep.views.summary import summarize
        from lcsearch.terminal import say

        lines = stack.enter_context(standard_output()) if events else None
        told: list[JsonView] = []

        def make(sweep: SweepFile, where: RunFolder) -> View:
            if lines is None:
                return make_view(sweep, where)
            told.append(JsonView(sweep, where, lines, resumed=resume))
            return told[0]

        outcome = launch(
            file,
            folder=folder,
            resume=resume,
            fresh=fresh,
            join=join,
            retry_failed=retry_failed,
            seed=seed,
            trials=trials,
            workers=workers,
            pruner=pruner,
            overrides=overrides or (),
            view=make,
        )
        where = RunFolder(outcome.folder)
        sweep = where.read().file
        state = StateReader(sweep, where).state(outcome.progress, outcome.study)
        if outcome.progress.rows or not outcome.message:
            text = summarize(state, outcome.seconds, outcome.code)
            say("\n" + text, sys.stderr if events else None)
        if outcome.message:
            _complain(f"{sweep.name}: {outcome.message}")
        for view in told:
            view.end(outcome, state)
    raise typer.Exit(outcome.code)


Risk = Annotated[float, typer.Option(help="What the P(beat) of all that stay stopped may sum to.", min=0.0, max=1.0)]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what it would cost; train nothing.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
# How a run is named, by every command about one.
Run = Annotated[Path | None, typer.Argument(help="The run. [default: the latest under runs/]", metavar="[RUN]")]
RunFolderOption = Annotated[Path | None, typer.Option("--folder", help="The run, in place of RUN.")]


def _run_named(run: Path | None, folder: Path | None) -> Path:
    """The folder of the run that a command is about.

    Raises:
        FileProblem: it was named twice, or not at all where there is none.
    """
    from lcsearch.sweep.store.folder import latest

    return Path(_either("RUN", run, folder) or latest(Path("runs"))).resolve()


def _either(what: str, given: str | Path | None, folder: Path | None) -> str | Path | None:
    """What a command is about, as its argument or --folder names it; None: neither does.

    Raises:
        FileProblem: both do.
    """
    from lcsearch.errors import FileProblem

    if given and folder:
        raise FileProblem(f"expected {what} or --folder, got both: {given} and --folder {folder}.")
    return given or folder


@app.command()
def finish(
    run: Run = None,
    risk: Risk = 0.02,
    folder: RunFolderOption = None,
    workers: Workers = None,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Train stopped trials on until the risk is low.

    The likeliest to have won first, from their checkpoints. Says what it costs, and asks.
    """
    _finish(run, folder, risk, (), workers, dry_run, yes)


@app.command()
def thaw(
    trial: Annotated[int, typer.Argument(help="The trial's number.", metavar="TRIAL", min=0)],
    run: Run = None,
    folder: RunFolderOption = None,
    workers: Workers = None,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Train one stopped trial on, to its end."""
    _finish(run, folder, 0.0, (trial,), workers, dry_run, yes)


def _finish(
    run: Path | None,
    folder: Path | None,
    risk: float,
    trials: tuple[int, ...],
    workers: int | None,
    dry_run: bool,
    yes: bool,
) -> None:
    with _told_plainly():
        from lcsearch.sweep.finish import finish as thawed
        from lcsearch.sweep.monitor.state import StateReader
        from lcsearch.sweep.store.folder import RunFolder
        from lcsearch.sweep.views.summary import summarize
        from lcsearch.terminal import say

        def agreed(text: str) -> bool:
            say(text)
            if dry_run or yes or not sys.stdin.isatty():
                return not dry_run
            return typer.confirm("go on?")

        outcome = thawed(_run_named(run, folder), risk=risk, trials=trials, workers=workers, agreed=agreed)
        if outcome is None:
            return
        where = RunFolder(outcome.folder)
        state = StateReader(where.read().file, where).state(outcome.progress, outcome.study)
        say("\n" + summarize(state, outcome.seconds, outcome.code))
        if outcome.message:
            _complain(f"{where.read().file.name}: {outcome.message}")
    raise typer.Exit(outcome.code)


@app.command()
def status(
    run: Run = None,
    folder: RunFolderOption = None,
) -> None:
    """Show how far a run is; reads only."""
    with _told_plainly():
        from lcsearch.sweep.store.folder import RunFolder
        from lcsearch.sweep.views.status import show

        show(RunFolder(_run_named(run, folder)))


@app.command()
def explain(
    trial: Annotated[str, typer.Argument(help="The trial's number, or best.", metavar="TRIAL")],
    run: Run = None,
    folder: RunFolderOption = None,
) -> None:
    """Tell why a trial was stopped, or was not."""
    with _told_plainly():
        from lcsearch.sweep.monitor.open_run import read_state
        from lcsearch.sweep.store.folder import RunFolder
        from lcsearch.sweep.views import explain as story
        from lcsearch.terminal import say

        story.check_word(trial)
        study, state = read_state(RunFolder(_run_named(run, folder)))
        say(story.explain(story.number_of(trial, state.progress), state, study))


@app.command()
def report(
    run: Run = None,
    folder: RunFolderOption = None,
    out: Annotated[Path | None, typer.Option(help="Where the report goes. [default: RUN/report]")] = None,
) -> None:
    """Write a run as one page to hand on.

    It can be read offline, its figures lie beside it; works while the run goes on.
    """
    with _told_plainly():
        from lcsearch.sweep.report.write import write
        from lcsearch.sweep.store.folder import RunFolder
        from lcsearch.sweep.views.summary import shown
        from lcsearch.terminal import say

        where = RunFolder(_run_named(run, folder))
        say(shown(write(where, None if out is None else out.resolve())))


@app.command()
def calibration(
    run: Run = None,
    folder: RunFolderOption = None,
    plot: Annotated[Path | None, typer.Option(help="Where a plot goes: a .png file.")] = None,
) -> None:
    """Hold forecasts to what became of their trials.

    Those of trials that ran to their end, with 95 % bands, and what so many can prove.
    """
    with _told_plainly():
        from lcsearch.sweep.report.calibration import show
        from lcsearch.sweep.store.folder import RunFolder
        from lcsearch.terminal import say

        for text in show(RunFolder(_run_named(run, folder)), plot):
            say(text)


@app.command()
def verify(
    log: Annotated[
        Path | None, typer.Argument(help="A run folder, or a decision log. [default: the latest run]", metavar="[LOG]")
    ] = None,
    study: Annotated[
        str | None,
        typer.Argument(help="Of a decision log: Optuna storage, or folder of a Tune experiment.", metavar="[STUDY]"),
    ] = None,
    folder: Annotated[Path | None, typer.Option(help="A run, in place of LOG, as other commands name it.")] = None,
    name: Annotated[str | None, typer.Option("--study", help="Which study, where there are several.")] = None,
) -> None:
    """Make every decision again, from log and study.

    Ends with 1 at the first that comes out otherwise than it was recorded, and where stops are missing from the log.
    """
    code = 0
    with _told_plainly():
        from lcsearch.sweep.store.folder import latest
        from lcsearch.sweep.views.verify import verified
        from lcsearch.terminal import say

        where = _either("LOG", log, folder) or latest(Path("runs"), "Name one: lcsearch verify LOG STUDY.")
        found = verified(Path(where), study, name)
        say("\n".join(found.lines))
        code = int(not found.sound)
    raise typer.Exit(code)


# How a study that is only read is named, by every command that reads one.
FolderInPlace = Annotated[Path | None, typer.Option(help="A run, in place of STUDY, as other commands name it.")]
WhichStudy = Annotated[str | None, typer.Option("--study", help="Which study, where there are several.")]
Metric = Annotated[
    str | None, typer.Option("--metric", "--value", help="Name of the metric: a tag, a key, a CSV column.")
]
TrialColumn = Annotated[str | None, typer.Option(help="CSV column that tells trials apart. [default: trial]")]
StepColumn = Annotated[str | None, typer.Option(help="CSV column of the step. [default: step]")]
Direction = Annotated[str | None, typer.Option(help="minimize or maximize, where the study does not say.")]
MaxSteps = Annotated[float | None, typer.Option(help="The step at which trials are judged.")]
CaveatsFile = Annotated[Path | None, typer.Option(help="JSON file: what is to be minded of a table of curves.")]


def _study_named(study: str | None, folder: Path | None, command: str) -> str:
    """Where the study lies that a command is asked to read."""
    from lcsearch.sweep.store.folder import latest

    named = _either("STUDY", study, folder) or latest(Path("runs"), f"Name a study: lcsearch {command} STUDY.")
    return str(named)


@app.command()
def replay(
    study: Annotated[
        str | None,
        typer.Argument(
            help="Optuna storage URL or file, run folder, CSV file, folder of TensorBoard, Ray Tune or MLflow. "
            "[default: the latest run]",
            metavar="[STUDY]",
        ),
    ] = None,
    folder: FolderInPlace = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(help="curve:threshold=0.02, median, asha ...; may be repeated. [default: curve, median, asha]"),
    ] = None,
    name: WhichStudy = None,
    metric: Metric = None,
    trial: TrialColumn = None,
    step: StepColumn = None,
    direction: Direction = None,
    max_steps: MaxSteps = None,
    judged: Annotated[str | None, typer.Option(help="best or final: which value counts. [default: best]")] = None,
    caveats: CaveatsFile = None,
    steps: Annotated[bool, typer.Option("--steps", help="Count steps where the study has times, too.")] = False,
    orders: Annotated[
        int | None, typer.Option(help="Random orders of the trials. [default: 20, or what a minute allows, 5 at least]")
    ] = None,
    workers: Annotated[int, typer.Option(help="Trials at once.")] = 1,
    processes: Annotated[
        int | None, typer.Option(help="Processes that search, at most; they change no figure. [default: one a core]")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where the plots go. [default: replay/NAME]")] = None,
) -> None:
    """Say what policies would have saved on a study.

    And lost: on trials that were run already, in their order and in random ones. The study is only read.
    """
    with _told_plainly():
        from lcsearch.replay.command import show
        from lcsearch.terminal import say

        where = _study_named(study, folder, "replay")
        wish: dict[str, Any] = {"study": name, "metric": metric, "direction": direction, "max_steps": max_steps}
        wish |= {"judged": judged, "steps": steps, "trial": trial, "step": step, "caveats": caveats}
        policies = policy or ["curve", "median", "asha"]
        for text in show(where, policies, wish, orders=orders, workers=workers, processes=processes, out=out):
            say(text)


@app.command()
def forecast(
    study: Annotated[
        str | None,
        typer.Argument(help="What replay takes. [default: the latest run]", metavar="[STUDY]"),
    ] = None,
    folder: FolderInPlace = None,
    name: WhichStudy = None,
    metric: Metric = None,
    trial: TrialColumn = None,
    step: StepColumn = None,
    direction: Direction = None,
    max_steps: MaxSteps = None,
    judged: Annotated[
        str | None, typer.Option(help="best or final: which value counts. [default: the run's, or best]")
    ] = None,
    caveats: CaveatsFile = None,
    candidates: Annotated[
        Path | None, typer.Option(help="CSV file of configurations not begun; its header names parameters.")
    ] = None,
    space: Annotated[
        Path | None, typer.Option(help="A file with a space:, as in a sweep file, to draw configurations from.")
    ] = None,
    n: Annotated[int, typer.Option("--n", help="With --space: how many are drawn.")] = 64,
    seed: Annotated[int, typer.Option(help="With --space: of the draws.")] = 0,
    top: Annotated[int | None, typer.Option(help="The most promising ones only.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Where a plot goes: a .png file.")] = None,
    forecasters: Annotated[
        list[str] | None,
        typer.Option(help="network, parametric, rank-gap, network=FILE; may be repeated. [default: the run's]"),
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="Who holds the network: auto, local, ray or a URL. [default: the run's, or auto]")
    ] = None,
    lines: Annotated[bool, typer.Option("--json", help="Tell programs: one JSON object a trial.")] = False,
) -> None:
    """Say what the model thinks of a study's trials.

    Of every begun one, the most promising first, and of configurations that are not begun. The study is only read.
    """
    with _told_plainly():
        from lcsearch.outlook.command import show
        from lcsearch.terminal import say

        where = _study_named(study, folder, "forecast")
        wish: dict[str, Any] = {"study": name, "metric": metric, "direction": direction, "max_steps": max_steps}
        wish |= {"judged": judged, "trial": trial, "step": step, "caveats": caveats}
        new: dict[str, Any] = {"candidates": candidates, "space": space, "n": n, "seed": seed}
        asked: dict[str, Any] = {"forecasters": forecasters, "host": host}
        for text in show(where, wish, **new, **asked, top=top, plot=plot, as_json=lines):
            say(text)


@app.command()
def prior(
    data: Annotated[
        Path | None, typer.Option(help="Table of real curves, or a folder of tables, to compare with.")
    ] = None,
    caveats: Annotated[Path | None, typer.Option(help="JSON file: what is to be minded of those tables.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Where a plot of the curves goes: a .png file.")] = None,
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
) -> None:
    """Show what the forecasting network is trained on.

    Studies drawn from its prior, in numbers and as curves, beside real ones.
    """
    with _told_plainly():
        from lcsearch.pretrain.prior_command import show
        from lcsearch.terminal import say

        for text in show(data, plot, caveats=caveats, seed=seed):
            say(text)


@app.command()
def pretrain(
    recipe: Annotated[Path, typer.Argument(help="The recipe.", metavar="RECIPE")],
    folder: Annotated[Path | None, typer.Option(help="Where the run lies. [default: runs/pretrain/NAME]")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of real curves' tables.")] = None,
    caveats: Annotated[Path | None, typer.Option(help="JSON file: what is to be minded of those tables.")] = None,
    minutes: Annotated[float | None, typer.Option(help="End after so many, with a checkpoint.", min=0)] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over; the old run is kept aside.")] = False,
) -> None:
    """Train the network's weights from a recipe.

    A folder with a checkpoint goes on where it stood, to the same weights. Ctrl-C saves one.
    """
    code = 0
    with _told_plainly():
        from lcsearch.pretrain.command import pretrain as train

        code = train(recipe, folder=folder, data=data, caveats=caveats, minutes=minutes, fresh=fresh)
    raise typer.Exit(code)


@app.command()
def serve(
    listen: Annotated[
        str, typer.Option(help="Where to listen; port 0 is any free one.", metavar="HOST:PORT")
    ] = "127.0.0.1:8642",
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda or cuda:N; auto is cuda where torch sees one.", metavar="DEVICE")
    ] = "auto",
    weights: Annotated[Path | None, typer.Option(help="Weights of your own. [default: those that ship]")] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="What clients must show. [default: LCSEARCH_HOST_TOKEN, else nothing]")
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate for https, a PEM file.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key.")] = None,
    max_body: Annotated[int, typer.Option(help="Bytes of a request.", min=1024)] = 16 * 2**20,
    max_pending: Annotated[int, typer.Option(help="Requests that may wait.", min=1)] = 1024,
    ready_file: Annotated[
        Path | None, typer.Option(help="JSON file with url and pid, written when requests are answered.")
    ] = None,
) -> None:
    """Hold the network and answer forecasts.

    For studies and runs of other processes and machines: host="URL" there, or LCSEARCH_HOST. SIGTERM ends it.
    """
    with _told_plainly():
        from lcsearch.host.command import serve as answer

        answer(
            listen,
            device,
            weights=weights,
            token_file=token_file,
            tls=(tls_cert, tls_key),
            max_body=max_body,
            max_pending=max_pending,
            ready_file=ready_file,
        )


@app.command()
def schema() -> None:
    """Print the sweep file's JSON Schema."""
    import json

    from lcsearch.sweep.spec.model import SweepFile

    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    print(json.dumps(dialect | SweepFile.model_json_schema(by_alias=True), indent=2))
