"""Commands about the forecasting network: its prior, its training, its host."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lcsearch.cli.errors import told_plainly


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
    with told_plainly():
        from lcsearch.pretrain.prior_command import show
        from lcsearch.terminal import say

        for text in show(data, plot, caveats=caveats, seed=seed):
            say(text)


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
    with told_plainly():
        from lcsearch.pretrain.command import pretrain as train

        code = train(recipe, folder=folder, data=data, caveats=caveats, minutes=minutes, fresh=fresh)
    raise typer.Exit(code)


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
    with told_plainly():
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
