"""What user code implements, and how it is found."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from traceback import extract_tb
from types import ModuleType

from stream_coord.bars import Bar
from stream_coord.errors import StrategyError, StreamCoordError, UsageError, near_miss
from stream_coord.session.boundaries import StateChange
from stream_coord.session.data import SessionData

_NOT_THEIRS = ("<", *(f"{Path(file).parent}{os.sep}" for file in (__file__, os.__file__)))
"""How the file names of code begin that is no strategy's: generated, ours, Python's own."""


class Strategy:
    """The base class of a strategy; override what you need.

    Within one minute the calls come in this order: `on_update` for each bar that was filled in or
    revised, `on_bar` for each new bar by symbol and then for each derived bar that ends, shorter
    intervals first, `on_step` once, `on_state` at a boundary. All symbols' bars of the minute are
    in `session` before the first call.

    Attributes:
        session: The session store; set before `on_session_start`.
        intervals: Of which derived bars `on_bar` is called as well, for example ``("5m", "1d")``;
            `session` has those of any interval without that.
    """

    session: SessionData
    intervals: Sequence[str] = ()

    def on_session_start(self) -> None:
        """Before the first minute of a session."""

    def on_update(self, bar: Bar) -> None:
        """A bar of an earlier minute came late or was revised; `bar` is its newest state.

        Derived bars that were delivered before and hold that minute follow as updates too.
        """

    def on_bar(self, bar: Bar) -> None:
        """A bar ended at this minute, a base bar or one of `intervals`; `bar.interval` tells."""

    def on_step(self, now: int) -> None:
        """A minute ended (`now`: UTC microseconds), with bars or without."""

    def on_state(self, change: StateChange) -> None:
        """The session passed from one state to another."""

    def on_session_end(self) -> None:
        """After the last minute of a session."""

    def result(self) -> object:
        """Return what the run is to report, of types that JSON has; None for nothing."""
        return None


def load_strategy(spec: str, params: Mapping[str, object], root: Path) -> Strategy:
    """Return a new strategy from ``module:Class`` or ``path.py:Class``.

    Args:
        spec: Where the class is; relative paths start at `root`; a module is an
            installed one, or one in `root`. What stands beside it can be imported.
        params: Keyword arguments of the class.
        root: The folder of the configuration.

    Raises:
        UsageError: `spec` is not of either form, or there is no such file, module or class.
        StrategyError: importing the module or calling the class raised.
    """
    place, colon, name = spec.rpartition(":")
    if not colon or not place or not name:
        raise UsageError(
            f"{spec!r} names no strategy",
            "Write module:Class or path.py:Class, for example my_strategy.py:Crossing.",
        )
    module = _file_module(root / place) if place.endswith(".py") else _named_module(place, root)
    cls = getattr(module, name, None)
    if not (isinstance(cls, type) and issubclass(cls, Strategy)):
        known = [
            key for key, value in vars(module).items() if isinstance(value, type) and key != name
        ]
        raise UsageError(
            f"{place} has no strategy class {name!r}{near_miss(name, known)}",
            "The class derives from stream_coord.strategy.Strategy.",
        )
    with _user_code(f"{name}()"):
        return cls(**params)


def _file_module(path: Path) -> ModuleType:
    if not path.is_file():
        raise UsageError(f"there is no strategy file {str(path)!r}")
    # Not the bare stem: a strategy in random.py must not hide the library of that name.
    spec = importlib.util.spec_from_file_location(f"strategy_file_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{str(path)!r} cannot be loaded as a Python module")
    _look_in(path.parent)
    module = importlib.util.module_from_spec(spec)
    # Registered, so that dataclasses and the like find their module while it runs.
    sys.modules[module.__name__] = module
    with _user_code(f"importing {path.name}"):
        spec.loader.exec_module(module)
    return module


def _look_in(folder: Path) -> None:
    """Let a strategy import its neighbours, now and later; no library is hidden by them."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def _named_module(name: str, root: Path) -> ModuleType:
    _look_in(root)
    try:
        with _user_code(f"importing {name}"):
            return importlib.import_module(name)
    except StrategyError as error:
        cause = error.__cause__
        if isinstance(cause, ModuleNotFoundError) and f"{name}.".startswith(f"{cause.name}."):
            raise UsageError(
                f"there is no module {name!r} for the strategy",
                f"Modules are looked for among the installed ones and in {str(root)!r}.",
            ) from None
        raise


@contextmanager
def _user_code(doing: str) -> Iterator[None]:
    try:
        yield
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # polars panics and sys.exit() are no Exceptions
        raise StrategyError(f"{doing}: {describe(error)}") from error


def describe(error: BaseException) -> str:
    """Return an exception of user code in one line: type, message, and the user's line."""
    try:
        parts = (error.message, error.hint) if isinstance(error, StreamCoordError) else (error,)
        message = ". ".join(" ".join(str(part).split()) for part in parts if part)
    except Exception:  # noqa: BLE001 - this is user code as well
        message = "(its message cannot be shown)"
    text = f"{type(error).__name__}: {message}" if message else type(error).__name__
    for frame in reversed(extract_tb(error.__traceback__)):
        if not frame.filename.startswith(_NOT_THEIRS) and "site-packages" not in frame.filename:
            return f"{text} ({frame.filename}, line {frame.lineno})"
    return text
