"""Bars from the store into blocks, the next session while the current one streams."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from threading import Thread
from typing import TYPE_CHECKING, Generic, TypeVar

from stream_coord.calendars import Session
from stream_coord.interval import Interval
from stream_coord.session.block import Block
from stream_coord.stores.base import BarStore

if TYPE_CHECKING:
    import polars as pl

_Item = TypeVar("_Item")
_Loaded = TypeVar("_Loaded")


@dataclass(frozen=True)
class LoadedSession:
    """A session's bars, ready to stream.

    Attributes:
        session: The session.
        block: Its bars.
        out_of_session: Stored bars within its span that have no slot on its grid.
        data_version: Hash of the data versions of all symbol-days it was read from, 32 hex digits.
    """

    session: Session
    block: Block
    out_of_session: int
    data_version: str


def load_session(
    store: BarStore, interval: Interval, symbols: Sequence[str], session: Session
) -> LoadedSession:
    """Read and verify one session's bars.

    Raises:
        StoreCorruptError: stored bytes are not what was written.
    """
    read = store.read_versioned(interval, symbols, session.start, session.end)
    block = Block.empty(symbols, [session], interval)
    return LoadedSession(session, block, block.fill(read.bars), data_version(read.versions))


def data_version(versions: pl.DataFrame) -> str:
    """Return one hash of the data versions of some symbol-days, 32 hex digits.

    Args:
        versions: What `BarStore.versions` returns.
    """
    from xxhash import xxh3_128_hexdigest

    rows = versions["date", "symbol", "checksum"].rows()
    text = "".join(f"{day} {symbol} {checksum}\n" for day, symbol, checksum in rows)
    return xxh3_128_hexdigest(text.encode())


def one_ahead(items: Sequence[_Item], load: Callable[[_Item], _Loaded]) -> Iterator[_Loaded]:
    """Yield ``load(item)`` for each item, loading the next in the background.

    One item is loaded ahead and no more, so that two exist at a time if the caller lets go of one
    before it asks for the next. What `load` raises is raised here, in its turn.
    """
    ahead = _Ahead(load, items[0]) if items else None
    for following in [*items[1:], None]:
        if ahead is None:
            return
        loaded = ahead.result()
        ahead = None if following is None else _Ahead(load, following)
        yield loaded
        del loaded


class _Ahead(Generic[_Item, _Loaded]):
    """A call under way in a thread.

    The program waits for it before it ends, however it ends: native code that still ran while the
    interpreter goes away would crash it.
    """

    def __init__(self, load: Callable[[_Item], _Loaded], item: _Item) -> None:
        self._outcome: list[_Loaded] = []
        self._error: BaseException | None = None
        self._thread = Thread(target=self._run, args=(load, item), name="sc-ahead")
        self._thread.start()

    def _run(self, load: Callable[[_Item], _Loaded], item: _Item) -> None:
        try:
            self._outcome.append(load(item))
        except BaseException as error:  # noqa: BLE001 - raised again where the result is awaited
            self._error = error

    def result(self) -> _Loaded:
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._outcome.pop()
