"""The `lcsearch` command, also as `python -m lcsearch`: hands over to `lcsearch.cli` where its packages are there."""

from __future__ import annotations

import sys

from lcsearch.extras import MissingExtra, need_sweep


def main() -> None:
    """Run the command line, or say what is to be installed for it."""
    try:
        need_sweep("lcsearch")
    except MissingExtra as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None
    from lcsearch.cli import main as run

    run()


if __name__ == "__main__":
    main()
