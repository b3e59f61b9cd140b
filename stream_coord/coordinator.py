"""The session loop: load a session, stream it, note what it was worth, begin the next."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from stream_coord.ahead import Errands
from stream_coord.calendars import Session
from stream_coord.compute.digest import run_digest
from stream_coord.compute.quality import GapRow
from stream_coord.compute.splits import Split
from stream_coord.delivery import wanted_intervals
from stream_coord.errors import NoBarsError, StrategyError
from stream_coord.history import History, Shortfall
from stream_coord.interval import Interval
from stream_coord.loading import LoadedSession, Loader
from stream_coord.moment import Moment, Running
from stream_coord.pace import Pace
from stream_coord.planning import Universe
from stream_coord.session.boundaries import StateChange
from stream_coord.session.data import SessionData
from stream_coord.session.quality import SessionQuality
from stream_coord.session.series import Trailing
from stream_coord.stores.base import BarStore
from stream_coord.strategy import Strategy, describe
from stream_coord.stream import SessionStream
from stream_coord.upkeep import Upkeep
from stream_coord.upkeep.keeper import Keeper

if TYPE_CHECKING:
    from stream_coord.stores.ledger import Disagreement


@dataclass(frozen=True)
class ReplayedSession:
    """What one replayed session was.

    Attributes:
        session: The session.
        digest: Its digest, 32 hex digits.
        data_version: Hash of the data versions it was read from.
        bars: Base bars delivered.
        derived_bars: Bars of the configured derived intervals delivered.
        updates: Update events of upkeep delivered; what a strategy itself adds is not counted.
        out_of_session: Stored bars within its span that no streamed hour covers.
        quality: Its expected, present and missing minutes, and its gaps.
        filled: How many minutes this run filled, by the identity of the source.
        disagreements: Minutes for which a source had other values than one before it.
        synthesized: How many minutes got a flat bar of volume 0.
        changes: The changes of its state, in order of time.
        shortfall: What its history lacks; None: nothing, or there was to be none.
    """

    session: Session
    digest: str
    data_version: str
    bars: int
    derived_bars: int
    updates: int
    out_of_session: int
    quality: SessionQuality
    filled: Mapping[str, int] = field(default_factory=dict)
    disagreements: Sequence[Disagreement] = ()
    synthesized: int = 0
    changes: Sequence[StateChange] = ()
    shortfall: Shortfall | None = None


@dataclass(frozen=True)
class _Ready:
    """A session that can begin: its bars, who looks after them, and what that waits for."""

    loaded: LoadedSession
    keeper: Keeper
    asked: Future[None] | None


@dataclass
class Replay:
    """A replay as far as it has come; whole once `Coordinator.run` returns.

    Attributes:
        speed: Simulated seconds per second; None: as fast as it went.
        sessions: The sessions replayed so far.
        splits: Those that its history is rescaled by.
        lag_seconds: How late the latest of all minutes came; 0 at full speed.
        timings: Seconds: startup, first_bar (both since the start of the run), stream, waiting
            (for minutes to be due; not part of stream), upkeep, roll, total.
        result: What the strategy's `result()` returned.
    """

    speed: float | None = None
    sessions: list[ReplayedSession] = field(default_factory=list)
    splits: Sequence[Split] = ()

    timings: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(
            ("startup", "first_bar", "stream", "waiting", "upkeep", "roll", "total"), 0.0
        )
    )
    lag_seconds: float = 0.0
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
    def derived_bars(self) -> int:
        """Bars of the configured derived intervals delivered."""
        return sum(session.derived_bars for session in self.sessions)

    @property
    def updates(self) -> int:
        """Update events of upkeep delivered."""
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
        pace: When minutes are due; full speed by default.
        upkeep: How to look after the data; None: not at all, and no derived bars unless asked for.
        history: Where the sessions before the current one come from; None: there is no history.

    Attributes:
        upkeep: As given; so is `history`.
        begun: `perf_counter` seconds at which the run began, for the timings; may be set.
        data: The session store.
        replay: What has come of the run so far.
    """

    def __init__(
        self,
        store: BarStore,
        interval: Interval,
        universe: Universe,
        sessions: Sequence[Session],
        strategy: Strategy | None = None,
        pace: Pace | None = None,
        upkeep: Upkeep | None = None,
        *,
        history: History | None = None,
    ) -> None:
        self.store = store
        self.history = history
        self._interval = interval
        self._universe = universe
        self._sessions = sessions
        self._strategy = strategy
        self.begun = perf_counter()
        self._pace = pace or Pace()
        self.upkeep = upkeep or Upkeep()
        self._errands = Errands()
        self._running: Running | None = None
        self._streaming: SessionStream | None = None
        symbols = universe.symbols_in(sessions[0])
        kept = history.kept if history else Trailing()
        self.data = SessionData(
            symbols, sessions[0], interval, self.upkeep.derived, kept.sessions, kept.intervals
        )
        self.data.use_history(history)
        self.data.subscriptions.later = universe.symbols
        splits = history.known_splits(universe.symbols, sessions) if history else ()
        self.replay = Replay(self._pace.factor, splits=splits)

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
        self.data.subscriptions.paced = self._pace.factor is not None
        try:
            self._run_sessions(on_session)
            if not self.replay.bars:
                raise self._no_bars()
            self.replay.result = self._result()
        finally:
            self._errands.abandon()
            self.data.subscriptions.close()
            self.upkeep.close()
            self.replay.lag_seconds = self._pace.largest_lag_seconds
            self.replay.timings["waiting"] = self._pace.waited_seconds
            self.replay.timings["total"] = perf_counter() - self.begun
        return self.replay

    def remember(self, remembered: Callable[[Session, Sequence[str]], Sequence[GapRow]]) -> None:
        """Let upkeep know, before the run, what is remembered of gaps; see `Upkeep`."""
        self.upkeep = replace(self.upkeep, remembered=remembered)

    def stop(self) -> None:
        """Stop the replay at its next step, and wait for none; from any thread.

        In the replay's thread it is as if Ctrl-C had been pressed there: a `KeyboardInterrupt`.
        """
        self.data.stop()
        self._pace.stop()
        self._errands.abandon()

    def moment(self) -> Moment | None:
        """Return how far the replay is, from any thread; None before its first session."""
        running, now = self._running, self.data.now
        if running is None:
            return None
        return running.at(now, self._pace.clock(now), self._pace.lag_seconds)

    def changes_so_far(self) -> tuple[Session | None, tuple[StateChange, ...]]:
        """Return the session that streams, if one does, and its changes of state told so far."""
        running, stream = self._running, self._streaming
        if running is None or stream is None or len(self.replay.sessions) == running.number:
            return None, ()
        return running.session, stream.changes[: stream.passed]

    def _run_sessions(self, on_session: Callable[[ReplayedSession], None]) -> None:
        timings, sessions = self.replay.timings, self.replay.sessions
        loader = Loader(self.store, self._interval, self._universe, self.history)
        ended = 0.0
        with ThreadPoolExecutor(1, "sc-ahead") as ahead:  # native code ends with the run
            coming = ahead.submit(self._ready, loader, self._sessions[0])
            for following in (*self._sessions[1:], None):
                ready = coming.result()
                self._wait_for(ready.asked)
                self._begin(ready)
                # Not before: where the oldest session was, the next one will be.
                if following is not None:
                    coming = ahead.submit(self._ready, loader, following)
                started, waited = perf_counter(), self._pace.waited_seconds
                timings["roll"] += started - ended if ended else 0.0
                timings["startup"] = timings["startup"] or started - self.begun
                sessions.append(self._stream(ready))
                ended = perf_counter()
                timings["stream"] += ended - started - (self._pace.waited_seconds - waited)
                on_session(sessions[-1])
                del ready

    def _ready(self, loader: Loader, session: Session) -> _Ready:
        """Return a session's bars, who looks after them, and what that waits for.

        Called in a thread of its own. The sources are asked in one more, which nobody waits for
        when the run is over.
        """
        wanted = sorted({*self.upkeep.derived, *wanted_intervals(self._strategy, self._interval)})
        loaded = loader.load(session, wanted)
        keeper = Keeper(self.upkeep, session, loaded.block, self._universe.expected_in(session))
        asked = self._errands.start(keeper.look_ahead) if keeper.has_questions else None
        return _Ready(loaded, keeper, asked)

    def _wait_for(self, asked: Future[None] | None) -> None:
        try:
            if asked is not None:
                asked.result()
        except CancelledError:
            raise KeyboardInterrupt("the replay was stopped") from None

    def _begin(self, ready: _Ready) -> None:
        """Roll to a session, or begin with it."""
        loaded, data = ready.loaded, self.data
        if loaded.follows:
            data.roll_session(loaded.session, loaded.series)
        else:
            data.start_session(loaded.session, loaded.series)
        ready.keeper.begin(data, lambda work: self._wait_for(self._errands.start(work)))

    def _stream(self, ready: _Ready) -> ReplayedSession:
        loaded, keeper, timeout = ready.loaded, ready.keeper, self.upkeep.timeout_micros
        stream = SessionStream(
            self.data, self._strategy, self._first_bar, self._pace, keeper, timeout
        )
        self._running = Running(
            loaded.session,
            len(self.replay.sessions) + 1,
            loaded.block,
            keeper.expected,
            self.replay.bars,
            self.upkeep.grace_micros,
            stream.changes,
        )
        self._streaming = stream
        digest = stream.run()
        self._streaming = None
        quality = keeper.quality()
        self.replay.timings["upkeep"] += keeper.seconds
        return ReplayedSession(
            session=loaded.session,
            digest=digest,
            data_version=loaded.data_version,
            bars=stream.bars,
            derived_bars=stream.derived_bars,
            updates=stream.updates,
            out_of_session=loaded.out_of_session,
            quality=quality,
            filled=keeper.filled(),
            disagreements=keeper.disagreements,
            synthesized=keeper.synthesized,
            changes=stream.changes,
            shortfall=loaded.shortfall,
        )

    def _first_bar(self) -> None:
        timings = self.replay.timings
        timings["first_bar"] = timings["first_bar"] or perf_counter() - self.begun

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

    async def run_async(
        self, on_session: Callable[[ReplayedSession], None] = lambda _: None
    ) -> Replay:
        """Replay all sessions in a thread of its own, beside the event loop.

        Tasks that exist already have a turn before it begins: what they subscribe to first, they
        get from the first minute on. When the awaiting task is cancelled the replay stops at its
        next step, as if Ctrl-C had been pressed; the cancellation goes on when its thread is over.

        Args:
            on_session: Called after each session, in the replay's thread.

        Raises:
            StreamCoordError: as `run` does.
        """
        import asyncio  # here, because it is slow to import
        from concurrent.futures import ThreadPoolExecutor

        await asyncio.sleep(0)
        with ThreadPoolExecutor(1, "sc-replay") as pool:
            running = asyncio.get_running_loop().run_in_executor(pool, self.run, on_session)
            # Looked at, so that asyncio does not complain of it where nobody awaits the outcome.
            running.add_done_callback(lambda done: done.exception())
            try:
                await asyncio.wait([running])
            except asyncio.CancelledError:
                self.stop()
                await asyncio.wait([running])
                raise
            return running.result()


def _plain(value: object) -> object:
    """Return a numpy array or number as what JSON has."""
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is nothing that JSON has")
