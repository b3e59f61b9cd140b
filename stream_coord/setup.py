"""A new place to work in: settings, store, ledger, and sample bars for a demo."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from stream_coord.config import load_config
from stream_coord.config.template import template
from stream_coord.errors import ConfigError

SETTINGS_FILE = "sc.toml"
DEMO_FOLDER = "sample"


@dataclass(frozen=True)
class SetUp:
    """What was made.

    Attributes:
        folder: The folder.
        settings: The settings file.
        store: The store's address.
        ledger: The ledger's address.
        demo: The folder of the sample bars; None without.
    """

    folder: Path
    settings: Path
    store: str
    ledger: str
    demo: Path | None


def set_up(folder: Path, *, demo: bool = False) -> SetUp:
    """Write ``sc.toml`` into `folder` and make an empty store and ledger.

    Args:
        folder: Made where it does not exist.
        demo: Also write sample bars and their truth file to ``sample``.

    Raises:
        ConfigError: there are settings already, or the folder cannot be written.
    """
    settings = folder / SETTINGS_FILE
    _write_new(settings, template())
    try:
        return _make(folder, settings, demo=demo)
    except BaseException:
        settings.unlink(missing_ok=True)  # so that it can be run again
        raise


def _make(folder: Path, settings: Path, *, demo: bool) -> SetUp:
    from stream_coord.stores import open_store
    from stream_coord.stores.ledger import open_ledger

    # Only what the file says counts: the environment is for runs, not for what is written down.
    config = load_config(settings, environ={})
    store = open_store(config.settings.store.url, config.root, create=True)
    ledger = open_ledger(config.settings.ledger.url, config.root, create=True)
    ledger.close()
    sample = folder / DEMO_FOLDER if demo else None
    if sample is not None:
        _write_demo(sample, config.cache_dir)
    return SetUp(folder, settings, store.url, ledger.url, sample)


def _write_demo(folder: Path, cache_dir: Path) -> None:
    from stream_coord.calendars import open_calendar
    from stream_coord.demo import write_demo

    write_demo(folder, open_calendar("NYSE", cache_dir=cache_dir))


def _write_new(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        raise ConfigError(
            f"{path} exists already", "Nothing was changed. Choose another folder, or edit it."
        ) from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error
