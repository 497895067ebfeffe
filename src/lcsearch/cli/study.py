"""Commands that read a study, of lcsearch or of others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lcsearch.cli.errors import told_plainly
from lcsearch.cli.named import FolderInPlace, WhichStudy, study_named

Metric = Annotated[
    str | None, typer.Option("--metric", "--value", help="Name of the metric: a tag, a key, a CSV column.")
]
TrialColumn = Annotated[str | None, typer.Option(help="CSV column that tells trials apart. [default: trial]")]
StepColumn = Annotated[str | None, typer.Option(help="CSV column of the step. [default: step]")]
Direction = Annotated[str | None, typer.Option(help="minimize or maximize, where the study does not say.")]
MaxSteps = Annotated[float | None, typer.Option(help="The step at which trials are judged.")]
CaveatsFile = Annotated[Path | None, typer.Option(help="JSON file: what is to be minded of a table of curves.")]


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
    with told_plainly():
        from lcsearch.replay.command import show
        from lcsearch.schedulers.optuna._snapshot import standing
        from lcsearch.terminal import say

        where = study_named(study, folder, "replay")
        wish: dict[str, Any] = {"study": name, "metric": metric, "direction": direction, "max_steps": max_steps}
        wish |= {"judged": judged, "steps": steps, "trial": trial, "step": step, "caveats": caveats}
        wish |= {"standing": standing}
        policies = policy or ["curve", "median", "asha"]
        for text in show(where, policies, wish, orders=orders, workers=workers, processes=processes, out=out):
            say(text)


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
    with told_plainly():
        from lcsearch.outlook.command import show
        from lcsearch.terminal import say

        where = study_named(study, folder, "forecast")
        wish: dict[str, Any] = {"study": name, "metric": metric, "direction": direction, "max_steps": max_steps}
        wish |= {"judged": judged, "trial": trial, "step": step, "caveats": caveats}
        new: dict[str, Any] = {"candidates": candidates, "space": space, "n": n, "seed": seed}
        asked: dict[str, Any] = {"forecasters": forecasters, "host": host}
        for text in show(where, wish, **new, **asked, top=top, plot=plot, as_json=lines):
            say(text)
