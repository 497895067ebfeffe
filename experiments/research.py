"""Tables of curves that research has published: what is to be minded of each."""

from pathlib import Path

from lcsearch.data.caveats import caveats_in

FILE = Path(__file__).with_name("caveats.json")
"""For `--caveats` of the command line, too."""
CAVEATS = caveats_in(FILE)
