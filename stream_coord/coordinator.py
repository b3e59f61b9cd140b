"""The session loop: load a session, stream it, note what it was worth, begin the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter

import msgspec
import numpy as np

from stream_coord.calendars import Session
from stream_coord.compute.digest import run_digest
from stream_coord.errors import NoBarsError, StrategyError
from stream_coord.interval import Interval
from stream_coord.loading import LoadedSession, load_session, one_ahead
from stream_coord.planning import Universe
from stream_coord.session.data import SessionData
from stream_coord.session.quality import SessionQuality, measure_session
from stream_coord.stores.base import BarStore
from stream_coord.strategy import Strategy, describe
from stream_coord.stream import SessionStream


@dataclass(frozen=True)
class ReplayedSession:
    """What one replayed session was.

    Attributes:
        session: The session.
        digest: Its digest, 32 hex digits.
        data_version: Hash of the data versions it was read from.
        bars: Base bars delivered.
        updates: Update events delivered.
        out_of_session: Stored bars within its span that no streamed hour covers.
        quality: Its expected, present and missing minutes, and its gaps.
    """

    session: Session
    digest: str
    data_version: str
    bars: int
    updates: int
    out_of_session: int
    quality: SessionQuality


@dataclass
class Replay:
    """A replay as far as it has come; whole once `Coordinator.run` returns.

    Attributes:
        sessions: The sessions replayed so far.
        timings: Seconds: startup, first_bar (both since the start of the run), stream, upkeep,
            roll, total.
        result: What the strategy's `result()` returned.
    """

    sessions: list[ReplayedSession] = field(default_factory=list)
    timings: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(
            ("startup", "first_bar", "stream", "upkeep", "roll", "total"), 0.0
        )
    )
    result: object = None

    @property
    def digest(self) -> str:
        """The run's digest, over the sessions replayed so far."""
        return run_digest(session.digest for session in self.sessions)

    @property
    def bars(self) -> int:
        """Base bars delivered."""
        return sum(session.bars for session in self.sessions)

    @property
    def updates(self) -> int:
        """Update events delivered."""
        return sum(session.updates for session in self.sessions)

    @property
    def bars_per_second(self) -> float:
        """Base bars delivered per second of streaming."""
        stream = self.timings["stream"]
        return self.bars / stream if stream else 0.0


class Coordinator:
    """Replays sessions from a store.

    Args:
        store: Where the bars are; never written.
        interval: The base interval.
        universe: The symbols.
        sessions: The sessions, ascending; at least one.
        strategy: Whom to call; None: nobody.
        begun: `perf_counter` seconds at which the run began, for the timings; now by default.
    """

    def __init__(
        self,
        store: BarStore,
        interval: Interval,
        universe: Universe,
        sessions: Sequence[Session],
        strategy: Strategy | None = None,
        begun: float | None = None,
    ) -> None:
        self.store = store
        self._interval = interval
        self._universe = universe
        self._sessions = sessions
        self._strategy = strategy
        self._begun = perf_counter() if begun is None else begun
        self.data = SessionData(universe.symbols_in(sessions[0]), sessions[0], interval)
        self.replay = Replay()

    def run(self, on_session: Callable[[ReplayedSession], None] = lambda _: None) -> Replay:
        """Replay all sessions.

        Args:
            on_session: Called after each session.

        Raises:
            StrategyError: user code raised.
            StoreCorruptError: stored bytes are not what was written.
            NoBarsError: no session had a single bar.
        """
        if self._strategy is not None:
            self._strategy.session = self.data
        try:
            self._run_sessions(on_session)
            if not self.replay.bars:
                raise self._no_bars()
            self.replay.result = self._result()
        finally:
            self.replay.timings["total"] = perf_counter() - self._begun
        return self.replay

    def _run_sessions(self, on_session: Callable[[ReplayedSession], None]) -> None:
        timings = self.replay.timings
        ended = 0.0
        for loaded in one_ahead(self._sessions, self._load):
            started = perf_counter()
            timings["roll"] += started - ended if ended else 0.0
            timings["startup"] = timings["startup"] or started - self._begun
            self.replay.sessions.append(self._stream(loaded))
            ended = perf_counter()
            timings["stream"] += ended - started
            on_session(self.replay.sessions[-1])

    def _load(self, session: Session) -> LoadedSession:
        return load_session(self.store, self._interval, self._universe.symbols_in(session), session)

    def _stream(self, loaded: LoadedSession) -> ReplayedSession:
        # Measured first: what a strategy adds to the session store is no better data.
        expected = self._universe.expected_in(loaded.session)
        quality = measure_session(loaded.block, loaded.session, expected)
        self.data.start_session(loaded.session, loaded.block)
        stream = SessionStream(self.data, loaded.block, self._strategy, self._first_bar)
        digest = stream.run()
        return ReplayedSession(
            session=loaded.session,
            digest=digest,
            data_version=loaded.data_version,
            bars=stream.bars,
            updates=stream.updates,
            out_of_session=loaded.out_of_session,
            quality=quality,
        )

    def _first_bar(self) -> None:
        timings = self.replay.timings
        timings["first_bar"] = timings["first_bar"] or perf_counter() - self._begun

    def _result(self) -> object:
        if self._strategy is None:
            return None
        try:
            text = msgspec.json.encode(self._strategy.result(), enc_hook=_plain)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise StrategyError(
                f"{type(self._strategy).__name__}.result raised {describe(error)}",
                "It returns what JSON has: numbers, text, lists, dicts with text keys.",
            ) from error
        return msgspec.json.decode(text)

    def _no_bars(self) -> NoBarsError:
        first, last = self._sessions[0].date, self._sessions[-1].date
        return NoBarsError(
            f"the store {self.store.url} holds no {self._interval} bars of the asked symbols in "
            f"the sessions {first} to {last}",
            "Import them with `sc import`; `sc report` shows what is stored.",
        )


def _plain(value: object) -> object:
    """Return a numpy array or number as what JSON has."""
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is nothing that JSON has")
