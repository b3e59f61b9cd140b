"""Texts that every database takes."""

from __future__ import annotations


def storable(text: str) -> str:
    r"""Return `text` with what databases refuse written out: lone surrogates and NUL.

    File names that are not UTF-8 hold the former, binary junk in a bad row the latter.

    >>> storable("caf\udce9\0")
    'caf\\udce9\\x00'
    """
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
