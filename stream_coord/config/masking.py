"""Secrets in texts: filled in from the environment, and never shown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Self

HIDDEN = "***"

_REFERENCE = re.compile(r"(?P<escaped>\$\$\{)|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)\}|\$\{")
_ONLY_REFERENCE = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*\}")

_WORDS = r"(?:password|passwd|pwd|secret|token|credential|api_?key|access_?key)"
_SECRET_NAME = re.compile(_WORDS, re.IGNORECASE)
_USER = r"(?P<before>://[^\s:/@?#]*:)"
# A whole value that is a URL: its password may hold anything, so it ends at the last @.
_URL_PASSWORD = re.compile(_USER + r"(?P<secret>.*)(?=@)", re.DOTALL)
# A URL somewhere in a text: what is quoted ends at its quote, so that masked JSON stays JSON.
_PASSWORD_IN_TEXT = re.compile(_USER + r"(?P<secret>[^\s\"'<>]*)(?=@)")
_SECRET_OPTION = re.compile(
    rf"(?P<before>(?:^|[?&;\s])[\w.-]*{_WORDS}[\w.-]*=)(?P<secret>[^&;\s\"']+)",
    re.IGNORECASE,
)


class MaskedText(str):
    """A text that is shown otherwise than it is, because a part of it is secret.

    It is the real text wherever a text is used; `repr` gives what may be shown. msgspec refuses to
    encode one, so that a whole settings object cannot slip into a file by accident.

    Attributes:
        shown: The text as it may be printed, with ``${NAME}`` or ``***`` for what is secret.
        secrets: The parts of the text that are never printed.
    """

    __slots__ = ("secrets", "shown")

    shown: str
    secrets: tuple[str, ...]

    def __new__(cls, text: str, shown: str, secrets: Iterable[str]) -> Self:
        """Make a text whose `repr` is that of `shown`."""
        masked = super().__new__(cls, text)
        masked.shown = shown
        masked.secrets = tuple(secrets)
        return masked

    def __repr__(self) -> str:
        return repr(self.shown)

    def __reduce_ex__(self, _protocol: object) -> tuple[type[MaskedText], tuple[object, ...]]:
        # What `copy` asks for: `str` alone would call `__new__` without `shown`.
        return MaskedText, (str(self), self.shown, self.secrets)


def expand(text: str, environ: Mapping[str, str]) -> str:
    """Replace each ``${NAME}`` from the environment; ``$${`` stands for a literal ``${``.

    Returns:
        `text` itself when it holds neither a reference nor a password, else a `MaskedText`.

    Raises:
        ValueError: variables are not set, or a ``${`` begins no ``${NAME}``.

    >>> expand("postgresql://sc:${PW}@db/bars", {"PW": "hush"})
    'postgresql://sc:${PW}@db/bars'
    >>> str(expand("postgresql://sc:${PW}@db/bars", {"PW": "hush"}))
    'postgresql://sc:hush@db/bars'
    """
    references = list(_REFERENCE.finditer(text))
    if any(match[0] == "${" for match in references):
        raise ValueError("holds a '${' that begins no ${NAME}; write $${ for a literal ${")
    names = list(dict.fromkeys(match["name"] for match in references if match["name"]))
    if missing := [name for name in names if name not in environ]:
        raise ValueError(f"not set in the environment: {', '.join(missing)}")
    value = _REFERENCE.sub(lambda match: environ[match["name"]] if match["name"] else "${", text)
    shown = shown_form(text)
    secrets = [environ[name] for name in names] + _secrets_within(value)
    return MaskedText(value, shown, secrets) if shown != value or secrets else text


def shown_form(text: str) -> str:
    """Return a whole value as it may be shown, with the passwords in it hidden."""
    if isinstance(text, MaskedText):
        return text.shown
    return _hide(_SECRET_OPTION, _hide(_URL_PASSWORD, text))


def hide_whole(text: str) -> MaskedText:
    """Return a text that is secret as a whole, such as the value of an option ``api_key``."""
    if isinstance(text, MaskedText) and _ONLY_REFERENCE.fullmatch(text.shown):
        return text
    return MaskedText(text, HIDDEN, (str(text),))


def is_secret_name(name: str) -> bool:
    """Tell whether an option of this name holds a secret.

    >>> is_secret_name("api_key"), is_secret_name("fast")
    (True, False)
    """
    return bool(_SECRET_NAME.search(name))


def mask_urls(text: str) -> str:
    """Return `text` with the passwords of the URLs in it hidden.

    >>> mask_urls("cannot open postgresql://sc:hush@db/bars?sslpassword=x")
    'cannot open postgresql://sc:***@db/bars?sslpassword=***'
    """
    return _hide(_SECRET_OPTION, _hide(_PASSWORD_IN_TEXT, text))


def mask_secrets(text: str, secrets: Iterable[str]) -> str:
    """Return `text` with `secrets` and the passwords of URLs hidden.

    A secret is also found percent-decoded, and escaped as `repr` does. One of fewer than four
    characters is hidden where it stands alone only, or it would make every text unreadable.
    """
    from urllib.parse import unquote

    forms = {form for s in secrets for form in (s, unquote(s), repr(s)[1:-1]) if form.strip()}
    if forms:
        words = [
            re.escape(form) if len(form) > 3 else rf"(?<!\w){re.escape(form)}(?!\w)"
            for form in sorted(forms, key=len, reverse=True)
        ]
        text = re.sub("|".join(words), HIDDEN, text)
    return mask_urls(text)


def _hide(pattern: re.Pattern[str], text: str) -> str:
    """Replace the secret part of each match, unless a ``${NAME}`` keeps it already."""

    def hidden(match: re.Match[str]) -> str:
        kept = _ONLY_REFERENCE.fullmatch(match["secret"])
        return match[0] if kept else match["before"] + HIDDEN

    return pattern.sub(hidden, text)


def _secrets_within(value: str) -> list[str]:
    patterns = (_URL_PASSWORD, _SECRET_OPTION)
    return [match["secret"] for pattern in patterns for match in pattern.finditer(value)]
