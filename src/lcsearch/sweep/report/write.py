"""The report, written: a page and its figures."""

from __future__ import annotations

from pathlib import Path

from lcsearch.errors import EnvironmentProblem
from lcsearch.files import write_atomically
from lcsearch.sweep.report.collect import collect
from lcsearch.sweep.store.folder import RunFolder


def write(folder: RunFolder, out: Path | None = None) -> Path:
    """Write `report.html` and its figures into `out` (RUN/report when None); returns the page's path.

    Raises:
        FileProblem, EnvironmentProblem: as :func:`collect`; `out` cannot be written.
    """
    from lcsearch.sweep.report.figures import draw
    from lcsearch.sweep.report.page import page

    report = collect(folder)
    where = out if out is not None else folder.root / "report"
    if out is None and where.is_symlink():
        text = f"{where}: expected a folder of lcsearch's own, got a symbolic link, and lcsearch writes through none."
        raise EnvironmentProblem(f"{text} Move it away, or name the folder with --out.")
    try:
        where.mkdir(parents=True, exist_ok=True)  # first: drawing takes seconds
        pictures = draw(report)
        text = page(report, pictures)
        for picture in pictures:
            write_atomically(where / f"{picture.name}.png", picture.light)
        write_atomically(where / "report.html", text.encode("utf-8", "replace"))
    except OSError as error:
        text = f"{where}: expected a folder lcsearch can write to, got {error.strerror or error}. "
        raise EnvironmentProblem(text + "Choose another with --out.") from error
    return where / "report.html"
