"""Reading the small text files that a configuration consists of, whatever is wrong with them."""

from __future__ import annotations

import re
from pathlib import Path

from stream_coord.errors import ConfigError

FILE_NAME = "sc.toml"
MAX_BYTES = 1_000_000


def current_folder() -> Path:
    """Return the current folder.

    Raises:
        ConfigError: it has been removed.
    """
    try:
        return Path.cwd()
    except OSError:
        raise ConfigError("the current folder no longer exists") from None


def nearest_file(folder: Path) -> Path:
    """Return the ``sc.toml`` in `folder` or in the nearest folder above it that has one.

    Raises:
        ConfigError: there is none.
    """
    for parent in (folder, *folder.parents):
        try:
            if (parent / FILE_NAME).is_file():
                return parent / FILE_NAME
        except OSError:  # a folder that we may not look into
            continue
    raise ConfigError(
        f"there is no {FILE_NAME} in {printable(folder)} or above it",
        "`sc init` writes one; --config names another.",
    )


def printable(path: Path) -> str:
    """Return a path for people, quoted when it holds characters that cannot be printed."""
    text = str(path)
    return text if text.isprintable() else repr(text)


def read_toml(path: Path, place: str) -> dict[str, object]:
    """Read a TOML file.

    Args:
        path: The file.
        place: What messages call it.

    Raises:
        ConfigError: it cannot be read or is not TOML; names the line where that is known.
    """
    import tomllib

    try:
        text = read_text(path)
    except FileNotFoundError:
        hint = "`sc init` writes one; --config names another."
        raise ConfigError(f"{place}: there is no such file", hint) from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{place}: {reason(error)}") from None
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{place}: is not valid TOML: {error}") from None
    except RecursionError:
        line = _line_of(text, r"(?:[\[{]\s*){20}")
        raise ConfigError(f"{place}{line}: arrays or tables are nested too deeply") from None
    except ValueError:  # Python reads no decimal of more than 4,300 digits
        line = _line_of(text, r"[0-9_]{4300}")
        raise ConfigError(f"{place}{line}: an integer has more than 64 bits") from None


def read_text(path: Path) -> str:
    """Read a UTF-8 file of at most `MAX_BYTES`.

    Raises:
        OSError: it cannot be read.
        ValueError: it holds something else; the text completes a sentence about the file.
    """
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"is larger than {MAX_BYTES:,} bytes")
    if data.startswith(b"\xef\xbb\xbf"):
        raise ValueError("line 1 begins with a byte order mark; save the file without it")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"line {line} is not UTF-8; save the file as UTF-8") from None


def reason(error: OSError | ValueError) -> str:
    """Return why `read_text` failed, to follow the file's name."""
    return f"cannot be read: {error.strerror}" if isinstance(error, OSError) else str(error)


def _line_of(text: str, pattern: str) -> str:
    match = re.search(pattern, text)
    return f", line {text.count(chr(10), 0, match.start()) + 1}" if match else ""
