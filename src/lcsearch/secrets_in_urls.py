"""Passwords in storage URLs: never shown."""

from __future__ import annotations

import re

_USERINFO = re.compile(r"(?<=://)([^:/@\s]*):(\S*)@")  # up to the last @: a password may hold one unescaped
_QUERY = re.compile(r"(?<=[?&])(password|passwd|pwd|sslpassword)=[^&\s'\"]+", re.IGNORECASE)


def mask(text: str) -> str:
    """`text` with the password of every URL in it starred out.

    >>> mask("postgresql://ann:s3cr@t@host/db: no answer")
    'postgresql://ann:***@host/db: no answer'
    >>> mask("postgresql://host/db?user=ann&password=s3cret")
    'postgresql://host/db?user=ann&password=***'
    """
    return _QUERY.sub(r"\1=***", _USERINFO.sub(r"\1:***@", text))


def mask_of(url: str | None, text: str) -> str:
    """`text` as :func:`mask` has it, and without the password of `url` wherever a driver put it."""
    found = _USERINFO.search(url or "")
    for word in (found.group(2) if found else "", *(m.group(0).partition("=")[2] for m in _QUERY.finditer(url or ""))):
        if len(word) >= 4:
            text = text.replace(word, "***")
    return mask(text)


def holds(text: str) -> bool:
    """Does `text` hold a URL with a password?"""
    return mask(text) != text
