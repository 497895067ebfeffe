"""`python -m lcsearch`."""

from lcsearch.cli import main

main()
