"""A report as one HTML page: nothing is fetched, no script runs, whatever a user wrote is escaped."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape

from lcsearch.proposal import DOUBTED, OWN
from lcsearch.session.study_report import COUNTED
from lcsearch.stopping.decision import percent
from lcsearch.stopping.verdict import Reason
from lcsearch.sweep.report.collect import Report, Stop
from lcsearch.sweep.report.figures import Picture, likely
from lcsearch.sweep.views.cuts import Cut
from lcsearch.sweep.views.phrases import clock, money, place, risk_told, standing, turns_told
from lcsearch.sweep.views.summary import limit_told, plain
from lcsearch.terminal import tame

_FAILURES = 200  # failed trials listed
_TURNS = 8  # the latest ones
_STOPS = 2000  # stopped ones: each has its story, and a browser its limits

_STYLE = """
:root { color-scheme: light dark; --paper: #fff; --page: #f6f8fa; --ink: #1f2328; --soft: #59636e; --line: #d0d7de;
  --complete: #0072b2; --stopped: #a86400; --failed: #c8322b; --running: #00785a; }
@media screen and (prefers-color-scheme: dark) { :root { --paper: #161b22; --page: #0d1117; --ink: #e6edf3;
  --soft: #9198a1; --line: #3d444d; --complete: #56b4e9; --stopped: #e69f00; --failed: #ff6b61; --running: #2fd3a2; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 3rem; max-width: 1120px; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; margin: 0; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; break-after: avoid; }
p { margin: .3rem 0; } .soft, figcaption { color: var(--soft); font-size: .88rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(19rem, 1fr)); gap: .8rem; margin: 1rem 0; }
.card:first-child { grid-row: span 2; }
.card, figure, .table { background: var(--paper); border: 1px solid var(--line); border-radius: 8px; }
.card { padding: .7rem .9rem; } .card h2 { margin: 0; font-size: .85rem; font-weight: 600; color: var(--soft); }
.big { font-size: 1.35rem; font-weight: 600; margin: 0; }
.card dl { display: grid; grid-template-columns: auto 1fr; gap: 0 .8rem; margin: .4rem 0 0; font-size: .88rem; }
dt { color: var(--soft); } dd { margin: 0; text-align: right; font-variant-numeric: tabular-nums;
  overflow-wrap: anywhere; }
figure + figure { margin-top: .8rem; }
figure { margin: 0; padding: .7rem; break-inside: avoid; } img { display: block; width: 100%; height: auto; }
.table { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: .88rem; }
th, td { padding: .3rem .55rem; text-align: right; vertical-align: top; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
th { color: var(--soft); font-weight: 600; border-bottom: 1px solid var(--line); }
tbody tr + tr > * { border-top: 1px solid var(--line); } tr { break-inside: avoid; }
td.text, th.text { text-align: left; min-width: 9rem; width: 100%; white-space: normal; overflow-wrap: anywhere; }
pre { margin: .4rem 0; padding: .6rem; background: var(--page); border-radius: 6px; white-space: pre-wrap;
  font: .82rem/1.45 ui-monospace, monospace; text-align: left; }
summary { cursor: pointer; } .note { border-left: 3px solid var(--stopped); padding-left: .7rem; }
.complete { color: var(--complete); } .stopped { color: var(--stopped); } .failed { color: var(--failed); }
.running, .waiting { color: var(--running); }
@media print { body { background: #fff; padding: 0; max-width: none; font-size: 11px; } .table { overflow: visible; }
  figure, .card { break-inside: avoid; } .cards { grid-template-columns: 1fr 1fr; } .invite { display: none; }
  th, td { padding: .1rem .3rem; }
  td.text, th.text { min-width: 4rem; } }
"""

_CAPTIONS = {
    "curves": "Every trial's curve by what became of it; a cross marks where a trial was stopped or failed. The axis "
    "shows the good end whole: what diverged is cut off.",
    "best": "The best value reached over all steps trained by all trials, a dot at every improvement, and where the "
    "same trials would have ended unpruned. A trial's steps are placed evenly between its begin and its end.",
    "fans": "Up to twelve stopped trials, those most likely to have beaten the incumbent of today (dotted): the curve, "
    "and from what it had reached at the stop to the horizon the stored forecast of the value it would have been "
    "judged by (median, 20-80 %, 5-95 %). Upright lines: the 5-95 % interval of that value at the last looks. P is "
    "P(beat) against today's incumbent.",
    "stops": "The stored forecast of every stopped trial's judged value (of the eighty most likely to have won, if "
    "there are more), against today's incumbent.",
    "p_beat": "P(beat) at every look that reached a forecaster; a cross marks a stop. The threshold is "
    "stricter on short curves; it is drawn where most trials' reports have it.",
    "calibration": "Trials that ran to their end, by the P(beat) of a look (each once a bin): the share of them that "
    "beat their target of then, with the band of Clopper and Pearson (95 %). On the diagonal P(beat) is right.",
    "timeline": "What each worker trained; a trial that lost its worker stands whole with the last one that had it. "
    "Wall clock counts launches; what lay between two takes no room.",
}

_HEADINGS = {
    "curves": "Curves by fate",
    "best": "Best value over compute",
    "fans": "Forecasts of stopped trials",
    "p_beat": "P(beat) over steps",
    "calibration": "Forecasts and what became of them",
    "importances": "Parameter importances",
    "timeline": "Workers over time",
}


def page(report: Report, pictures: Sequence[Picture]) -> str:
    """The whole page."""
    drawn = {picture.name: picture for picture in pictures}
    parts = [_head(report)]
    for name in ("curves", "best", "fans", "stops", "p_beat", "calibration"):
        parts += _section(name, drawn)
    parts += _table(report)
    parts += _cuts(report)
    parts += _importances(report, drawn)
    parts += _section("timeline", drawn)
    parts += _failures(report)
    title = escape(f"{report.sweep.name}: lcsearch report")
    meta = '<meta charset="utf-8">\n<meta name="viewport" content="width=device-width, initial-scale=1">'
    body = "\n".join(parts)
    return tame(
        f'<!doctype html>\n<html lang="en">\n<head>\n{meta}\n<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n'
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def _head(report: Report) -> str:
    s, progress = report.sweep, report.progress
    order = ("complete", "stopped", "thawed", "failed", "running", "paused", "waiting")
    said = ", ".join(f'<span class="{n}">{progress.counts[n]} {n}</span>' for n in order if n in progress.counts)
    asked = f"{s.goal} {s.metric}, judged by its {s.judged} value over {s.max_steps} {s.step}s; "
    n = s.backend.workers.n
    asked += f"{s.sampler.kind} sampler, {s.pruner.kind} pruner, {n} worker{'s' * (n != 1)} on {s.backend.kind}, "
    asked += f"seed {s.seed}"
    unfinished = sum(progress.counts.get(state, 0) for state in ("running", "waiting", "paused"))
    missing = progress.budget - progress.counted
    lines = [f"<h1>{escape(s.name)}</h1>", f'<p class="soft">{escape(asked)}</p>', f"<p>{said or 'no trials yet'}</p>"]
    limit = limit_told(progress, s, report.state.clock.seconds)
    if not unfinished and limit is not None:
        lines.append(f'<p class="note">{escape(limit[:1].upper() + limit[1:])}.</p>')
    elif unfinished or missing > 0:
        states = "running, paused or waiting" if s.pause else "running or waiting"
        text = f"Not finished: {unfinished} {states}, {max(missing, 0)} of {progress.budget} not begun."
        lines.append(f'<p class="note">{text}</p>')
    lines += [f'<p class="note">{escape(note)}</p>' for note in report.notes]
    cards = [
        _best(report),
        _compute(report),
        _seconds(report),
        _cost(report),
        _risk(report),
        _looks(report),
        _configurations(report),
        _turns(report),
    ]
    return "\n".join([*lines, '<div class="cards">', *(card for card in cards if card), "</div>"])


def _card(title: str, big: str, rows: Iterable[tuple[str, str]] = (), soft: str = "") -> str:
    listed = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in rows)
    text = f'<section class="card"><h2>{escape(title)}</h2><p class="big">{escape(big)}</p>'
    text += f"<dl>{listed}</dl>" if listed else ""
    return text + (f'<p class="soft">{escape(soft)}</p>' if soft else "") + "</section>"


def _best(report: Report) -> str:
    best = report.progress.best
    if best is None:
        return _card("Best", "none yet", soft="No trial has reported a finite value that counts.")
    metric = report.sweep.metric
    soft = standing(report.progress, report.sweep)
    soft = f"{soft[:1].upper()}{soft[1:]}." if soft else ""
    rows = [(name, plain(value)) for name, value in best.params.items()]
    rows += [("begun as", begun)] if (begun := report.progress.numbered[best.number].begun) else []
    return _card(f"Best {metric} {place(best, report.sweep)}", f"{best.value:.6g}", rows, soft)


def _saved_by(report: Report) -> str:
    return f"saved by stops{' and cuts' if report.cuts else ''}, estimate"


def _compute(report: Report) -> str:
    p, part, step = report.progress, report.state.share_saved, report.sweep.step
    share = "nothing yet" if part is None else f"{part:.0%} of {p.spent + p.saved}"
    rows = [(_saved_by(report), f"{p.saved} ({share})"), ("unpruned", f"{report.state.unpruned}")]
    rows += [("paid for pauses and resumes", f"{p.paid:g}")] if p.paid else []
    n = len(report.progress.rows)
    whole = f"of {report.sweep.max_steps} {step}s"
    if any(row.spent < report.sweep.max_steps for row in report.progress.of("complete")):
        whole = "as long as the complete ones were"
    soft = f"Unpruned: {n} trials {whole}"
    soft += "; failed ones as long as they ran." if report.progress.of("failed") else "."
    soft += f" Saved: {COUNTED}." if p.saved else ""
    return _card(f"Compute in {step}s", f"{p.spent} spent", rows, soft)


def _seconds(report: Report) -> str:
    p, state = report.progress, report.state
    if not p.seconds:
        return _card("Worker time", "not known", soft="No worker's time is known yet.")
    rows = [
        (name, duration(seconds) if seconds is not None else "not known")
        for name, seconds in ((_saved_by(report), p.seconds_saved), ("unpruned, estimate", state.seconds_unpruned))
    ]
    if state.wall is not None:
        rows.append(("wall clock", duration(state.wall)))
    soft = "Trials' own time, added up over workers. Estimated from the median time between each trial's reports, "
    soft += "so without its start-up."
    return _card("Worker time", f"{duration(p.seconds)} spent", rows, soft)


def _cost(report: Report) -> str:
    price, state = report.sweep.budget.money_per_hour, report.state
    if state.money is None or not report.progress.seconds:
        return ""
    spent, saved, unpruned = (
        "not known" if amount is None else money(amount) for amount in (*state.money, state.money_unpruned)
    )
    rows = [(_saved_by(report), saved), ("unpruned, estimate", unpruned)]
    return _card(
        "Cost", f"{spent} spent", rows, f"{report.progress.seconds / 3600:.3g} worker hours at {price:g} each."
    )


def duration(seconds: float) -> str:
    """As the summary has it, but short times with a decimal.

    >>> duration(0.1234), duration(75)
    ('0.12 s', '1 min 15 s')
    """
    return f"{seconds:.2g} s" if seconds < 10 else clock(seconds)


def _risk(report: Report) -> str:
    if report.sweep.pruner.kind != "curve":
        return ""
    limit = getattr(report.sweep.pruner, "risk", None)
    soft = "From the forecasts stored at the stops, against the incumbent of today: the sum of their P(beat), which is "
    soft += "a bound however the trials hang together. "
    soft += "No limit was set." if limit is None else f"The limit, {percent(limit)}, is one of this bound."
    if report.state.ledger is not None and (certificate := report.state.ledger.certificate):
        soft += f" {certificate[0].upper()}{certificate[1:]}."
    if report.state.calibration.telling:
        sentence = report.state.calibration.sentence
        soft += f" {sentence[:1].upper()}{sentence[1:]}."
    return _card("Risk that some stop lost the winner", risk_told(report.state), soft=soft)


def _looks(report: Report) -> str:
    if report.sweep.pruner.kind != "curve":
        return ""
    state = report.state
    if state.latency is None:
        return _card("Looks", "none yet", soft="No look reached a forecaster, or the decision log is gone.")
    low, high = (f"{1e3 * seconds:.0f} ms" for seconds in state.latency)
    rows = [("p50", low), ("p99", high), ("failed open", str(state.n_failed_open))]
    rows += [(f"  {what}", str(n)) for what, n in state.failed_open.items()]
    return _card("Looks", f"{state.n_looks} forecasts", rows)


def _configurations(report: Report) -> str:
    """How trials came by their configurations, where forecasts had a say."""
    begun = [row.begun for row in report.progress.rows if row.begun]
    if not begun:
        return ""
    # shares move, and with them the words
    words = (why.removeprefix(OWN).lstrip(":, ") for why in begun if why.startswith(OWN))
    own = Counter("more of them while choices stood behind" if DOUBTED in why else why for why in words)
    soft = "The others are the sampler's own, and why. What each was chosen for: `lcsearch explain TRIAL`."
    rows = [(why, str(n)) for why, n in own.most_common()]
    return _card("Configurations", f"{len(begun) - own.total()} of {len(begun)} chosen by forecasts", rows, soft)


def _turns(report: Report) -> str:
    told = turns_told(report.state, _TURNS)
    if not told:
        return ""
    rows = [(str(n), line.strip()) for n, line in enumerate(told[1:], start=1)]
    return _card("Turns", f"{report.state.n_turns} given", rows, f"{told[0]}. The last ones, the latest last.")


def _section(name: str, drawn: dict[str, Picture]) -> list[str]:
    if name not in drawn:
        if name == "curves":
            return [f"<h2>{_HEADINGS[name]}</h2>", "<p>No trial has reported a value that can be drawn yet.</p>"]
        return []
    heading = [f"<h2>{_HEADINGS[name]}</h2>"] if name in _HEADINGS else []
    return [*heading, _figure(drawn[name], _CAPTIONS[name])]


def _figure(picture: Picture, caption: str) -> str:
    light, dark = (
        "data:image/png;base64," + base64.b64encode(data).decode("ascii") for data in (picture.light, picture.dark)
    )
    return (
        f'<figure><picture><source media="screen and (prefers-color-scheme: dark)" srcset="{dark}">'
        f'<img alt="{escape(picture.alt)}" src="{light}"></picture>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _table(report: Report) -> list[str]:
    heading = "<h2>Stops</h2>"
    if not report.stops:
        return [heading, f"<p>No trial was stopped{' as it ran' if report.cuts else ''}.</p>"]
    names = ("trial", "step", "rule", "P(beat) now", "before", "threshold", "P(beat) today", "incumbent then", "rank",
             "saved, about")  # fmt: skip
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    chance = {stop.number: stop.p_today if stop.p_today is not None else stop.p or 0.0 for stop in report.stops}
    shown = sorted(report.stops, key=lambda stop: -chance[stop.number])[:_STOPS]
    shown.sort(key=lambda stop: stop.number)
    rows = "\n".join(_row(stop) for stop in shown)
    rules = sorted({stop.reason for stop in report.stops if stop.reason})
    advice = {rule: Reason[rule].advice for rule in rules if rule in Reason.__members__}
    notes = [f'<p class="soft">{escape(rule)}: {escape(text)}</p>' for rule, text in advice.items()]
    if n := len(report.stops) - len(shown):
        notes.append(f"<p>and {n} more, less likely to have won; `lcsearch explain TRIAL` tells of each</p>")
    first = [f"trial {stop.number}" for stop in likely(report.stops, 1)]
    if first:
        notes.append(
            '<p class="soft">P(beat) today is re-read from the forecast stored at the stop, against the incumbent of '
            f"today; the risk is made of these. Most likely to have won: {first[0]}.</p>"
        )
    return [
        heading,
        f'<div class="table"><table><thead><tr>{head}<th scope="col" class="text">reason</th></tr></thead>',
        f"<tbody>\n{rows}\n</tbody></table></div>",
        *notes,
    ]


def _row(stop: Stop) -> str:
    cells = [
        str(stop.number),
        f"{stop.step:g}",
        stop.reason or "-",
        *(percent(p) if p is not None else "-" for p in (stop.p, stop.p_before, stop.threshold, stop.p_today)),
        f"{stop.incumbent[0]:.4g} of trial {stop.incumbent[1]}" if stop.incumbent else "-",
        f"{stop.rank[0]} of {stop.rank[1]}" if stop.rank else "-",
        str(stop.saved),
    ]
    known = stop.p is not None and stop.incumbent is not None  # then the columns say it all but for the details
    said, kind = ("the whole story", ' class="invite"') if known else (stop.line, "")
    return _cells(cells, said, stop.text, kind)


def _cuts(report: Report) -> list[str]:
    """Trials that ended while they were paused; no forecast was stored with them, so they are in no risk."""
    if not report.cuts:
        return []
    names = ("trial", report.sweep.step, "rank there", "by", "allocation", "saved, about")
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    rows = "\n".join(_cut_row(cut) for cut in report.cuts[:_STOPS])
    more = [f"<p>and {n} more</p>"] if (n := len(report.cuts) - _STOPS) > 0 else []
    note = "The rank is by value among all trials that came to that step, as things stand now; the allocation is its "
    note += "receipt's number in the decision log. No risk is known for a cut."
    return [
        "<h2>Cut while paused</h2>",
        f'<div class="table"><table><thead><tr>{head}<th scope="col" class="text">reason</th></tr></thead>',
        f"<tbody>\n{rows}\n</tbody></table></div>",
        *more,
        f'<p class="soft">{note}</p>',
    ]


def _cut_row(cut: Cut) -> str:
    number = "-" if cut.allocation is None else str(cut.allocation)
    cells = [str(cut.number), f"{cut.step:g}", "{} of {}".format(*cut.rank), cut.by, number, str(cut.saved)]
    return _cells(cells, cut.line, cut.text)


def _cells(cells: Sequence[str], said: str, story: str, kind: str = "") -> str:
    """A row of a table; its last cell opens to the whole story."""
    text = f"<details{kind}><summary>{escape(said)}</summary><pre>{escape(story)}</pre></details>"
    return "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + f'<td class="text">{text}</td></tr>'


def _importances(report: Report, drawn: dict[str, Picture]) -> list[str]:
    heading = f"<h2>{_HEADINGS['importances']}</h2>"
    if "importances" in drawn:
        return [heading, _figure(drawn["importances"], report.importances.basis)]
    return [heading, f"<p>{escape(report.importances.basis)}</p>"]


def _failures(report: Report) -> list[str]:
    failed = report.progress.of("failed")
    if not failed:
        return []
    rows = "\n".join(
        f'<tr><td>{row.number}</td><td>{row.spent}</td><td class="text">{escape(row.note)}</td></tr>'
        for row in failed[:_FAILURES]
    )
    more = [f"<p>and {len(failed) - _FAILURES} more</p>"] if len(failed) > _FAILURES else []
    head = '<th scope="col">trial</th><th scope="col">step</th><th scope="col" class="text">error</th>'
    table = f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>\n{rows}\n</tbody></table></div>'
    return ["<h2>Failures</h2>", table, *more]
