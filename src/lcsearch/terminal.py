"""Text for whatever terminal there is: what its encoding takes, as wide as it is, never a control character."""

from __future__ import annotations

import json
import os
import re
import sys
from contextlib import suppress
from typing import TextIO

_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

BLOCKS = "▁▂▃▄▅▆▇█"
_PLAIN = str.maketrans(BLOCKS, "_.:-=+*#") | {ord("…"): "..."}


def safe(text: str, encoding: str | None) -> str:
    r"""What a stream of `encoding` can take of `text`, lines kept: blocks and dots by others, escapes for the rest.

    >>> safe("▁▄█ naïve\x1b[1m", "ascii"), safe("▁▄█ naïve", "utf-8")
    ('_-# na\\xefve?[1m', '▁▄█ naïve')
    """
    if not text.isprintable():
        text = "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in text)
    encoding = encoding or "ascii"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.translate(_PLAIN) if not takes_blocks(encoding) else text
        text = text.encode(encoding, "backslashreplace").decode(encoding)
    except LookupError:  # a name that Python does not know
        return safe(text, "ascii")
    return text


def tame(text: str) -> str:
    r"""`text` of several lines without what steers a terminal or turns letters around: escapes, bells, bidi marks.

    >>> tame("a\tb\x1b]0;title\x07\u202ec\n")
    'a\tb?]0;title??c\n'
    """
    return _STEERING.sub("?", text)


def one_line(text: str) -> str:
    r"""`text` as :func:`tame` has it, in one line.

    >>> one_line("no\nERROR forged \x07")
    'no ERROR forged ?'
    """
    return " ".join(tame(text).split())


def quoted(text: str) -> str:
    r"""`text`, in quotes where it would not stand in a line as it is.

    >>> quoted("digits"), quoted("dig\nits")
    ('digits', '"dig\\nits"')
    """
    return text if text.isprintable() else json.dumps(text)


def takes_blocks(encoding: str | None) -> bool:
    """Can a stream of `encoding` show sparklines?"""
    try:
        (BLOCKS + "…").encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def fit(text: str, width: int) -> str:
    """At most `width` columns of one line; what is cut ends in an ellipsis.

    >>> fit("val_loss", 6), fit("東京都", 5), fit("abc", 0)
    ('val_l…', '東京…', '')
    """
    from rich.cells import cell_len, set_cell_size

    if cell_len(text) <= width:
        return text
    return set_cell_size(text, width - 1).rstrip() + "…" if width > 0 else ""


def say(text: str, stream: TextIO | None = None) -> None:
    """Print a line, on standard output if no stream is named.

    Whoever has closed the pipe (`lcsearch run ... | head`) or the terminal misses the rest, and nothing more happens.
    """
    stream = sys.stdout if stream is None else stream
    try:
        print(safe(text, stream.encoding), file=stream, flush=True)
    except (OSError, ValueError):
        silence(stream)


def silence(stream: TextIO) -> None:
    """What goes to `stream` from now on goes nowhere, the flush at the interpreter's end included."""
    with suppress(OSError, ValueError), open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), stream.fileno())
