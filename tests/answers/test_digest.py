"""The digest of a replay equals one that is computed the slow and plain way.

`ReferenceDigest` is written from the docstring of `stream_coord.compute.digest` alone: bar by bar
with `struct.pack`, without numpy, on nothing of ours but a session's segments.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import Any
from unittest.mock import patch
from zipfile import ZipFile

import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from xxhash import xxh3_64_intdigest, xxh3_128_digest

from stream_coord import stream
from stream_coord.bars import FILLED, Bar, frame_schema
from stream_coord.calendars import Kind, Segment, Session
from stream_coord.clock import parse_moment
from stream_coord.compute.digest import run_digest
from stream_coord.interval import DAY, MINUTE, Interval
from stream_coord.session.block import Block
from stream_coord.session.data import SessionData
from stream_coord.strategy import Strategy

PlainBar = tuple[tuple[float, ...], int]
"""(open, high, low, close, volume) and flags."""
PlainBars = Mapping[tuple[str, int], PlainBar]
"""Bars by symbol and start."""
NOT_STARTED, PRE_MARKET, ACTIVE, POST_MARKET, ENDED, TIMEOUT = range(6)
TIMEOUT_MICROS = 5 * MINUTE
DIGESTED_FLAGS = 1 | 4


class ReferenceDigest:
    """Digests of sessions and runs, event by event."""

    def of_session(
        self, session: Session, interval: int, bars: PlainBars, derived: Iterable[int] = ()
    ) -> str:
        symbols = sorted({symbol for symbol, _ in bars})
        events = [
            (
                start + interval,
                1,
                self.bar(start + interval, 1, interval, symbol, bars[symbol, start]),
            )
            for segment in session.segments
            for start in range(segment.open, segment.close, interval)
            for symbol in symbols
            if (symbol, start) in bars
        ]
        for longer in sorted(derived):
            for end, starts, cut in self.buckets(session, interval, longer):
                for symbol in symbols:
                    held = [bars[symbol, start] for start in starts if (symbol, start) in bars]
                    if held:
                        bar = self.derive(held, cut)
                        events.append((end, 3, self.bar(end, 3, longer, symbol, bar)))
        events += [
            (time, 5, struct.pack("<qIIQq5d", time, 5, 0, 0, 0, left, entered, 0, 0, 0))
            for time, left, entered in self.boundaries(
                session, {start + interval for _, start in bars}
            )
        ]
        events.sort(key=lambda event: event[:2])  # stable: symbols stay in their order
        header = f"stream-coord digest 1\0{session.date:%Y-%m-%d}\0".encode()
        return xxh3_128_digest(header + b"".join(record for *_, record in events)).hex()

    def bar(self, end: int, rank: int, interval: int, symbol: str, bar: PlainBar) -> bytes:
        values, flags = bar
        key = xxh3_64_intdigest(symbol.encode())
        return struct.pack("<qIIQq5d", end, rank, flags & DIGESTED_FLAGS, key, interval, *values)

    def buckets(
        self, session: Session, interval: int, longer: int
    ) -> list[tuple[int, range | list[int], bool]]:
        """Return the end of each derived bar, the starts of its base bars, and if it is cut."""
        if longer == DAY:
            regular = [part for part in session.segments if part.kind == "regular"]
            starts = [start for part in regular for start in range(part.open, part.close, interval)]
            return [(regular[-1].close, starts, False)]
        return [
            (min(at + longer, part.close), range(at, min(at + longer, part.close), interval), cut)
            for part in session.segments
            for at in range(part.open, part.close, longer)
            for cut in [at + longer > part.close]
        ]

    def derive(self, held: list[PlainBar], cut: bool) -> PlainBar:
        """Return one derived bar; synthetic bars count only where there is no other."""
        real = [values for values, flags in held if not flags & 1]
        opens, highs, lows, closes, volumes = zip(*(real or [v for v, _ in held]), strict=True)
        volume = 0.0
        for each in volumes:
            volume += each
        flags = (0 if real else 1) | (4 if cut else 0)
        return (opens[0], max(highs), min(lows), closes[-1], volume), flags

    def boundaries(self, session: Session, ends: set[int]) -> list[tuple[int, int, int]]:
        """Return time, state left and state entered of each change; `ends`: of all bars."""
        segments = session.segments
        regular = [segment for segment in segments if segment.kind == "regular"]
        entered = [(regular[0].open, ACTIVE), *self.silences(regular, ends)]
        if segments[0].kind == "pre":
            entered.insert(0, (segments[0].open, PRE_MARKET))
        if segments[-1].kind == "post":
            entered.append((regular[-1].close, POST_MARKET))
        entered.append((segments[-1].close, ENDED))
        left = [NOT_STARTED, *(state for _, state in entered[:-1])]
        return [(time, before, state) for (time, state), before in zip(entered, left, strict=True)]

    def silences(self, regular: list[Segment], ends: set[int]) -> list[tuple[int, int]]:
        """Walk from half a minute to the next, and count those of trading without a bar."""
        entered, silent, state, step = [], 0, ACTIVE, MINUTE // 2
        for time in range(regular[0].open + step, regular[-1].close, step):
            if any(part.open < time <= part.close for part in regular):
                silent += step
            if time in ends:
                silent = 0
            heard = ACTIVE if silent < TIMEOUT_MICROS else TIMEOUT
            if heard != state and (heard == TIMEOUT or time in ends):
                entered.append((time, heard))
                state = heard
        return entered

    def of_run(self, session_digests: Iterable[str]) -> str:
        parts = [b"stream-coord digest 1\0", *map(bytes.fromhex, session_digests)]
        return xxh3_128_digest(b"".join(parts)).hex()


REFERENCE = ReferenceDigest()
OPEN = parse_moment("2018-11-23T14:30:00Z")
FULL_DAY = Session(date(2018, 11, 23), (Segment(OPEN, OPEN + 390 * MINUTE, "regular"),))
EARLY_CLOSE = Session(date(2018, 11, 23), (Segment(OPEN, OPEN + 210 * MINUTE, "regular"),))
HONG_KONG = Session(
    date(2018, 11, 23),
    (
        Segment(parse_moment("2018-11-23T01:30:00Z"), parse_moment("2018-11-23T04:00Z"), "regular"),
        Segment(parse_moment("2018-11-23T05:00:00Z"), parse_moment("2018-11-23T08:00Z"), "regular"),
    ),
)
EXTENDED = Session(
    date(2018, 11, 23),
    (
        Segment(OPEN - 330 * MINUTE, OPEN, "pre"),
        Segment(OPEN, OPEN + 390 * MINUTE, "regular"),
        Segment(OPEN + 390 * MINUTE, OPEN + 630 * MINUTE, "post"),
    ),
)
# Sorted by code point these differ from what any locale, or a sort by length, would say.
SYMBOLS = ("A.B", "AB", "B", "BRK-A", "BRK.B", "Z", "^GSPC", "a", "aB")


class Silent(Strategy):
    """A strategy that asks for every callback and does nothing in it."""

    def on_update(self, bar: Bar) -> None: ...

    def on_bar(self, bar: Bar) -> None: ...

    def on_step(self, now: int) -> None: ...


def streamed_digest(
    session: Session,
    bars: PlainBars,
    strategy: Strategy | None = None,
    interval: int = MINUTE,
    history: tuple[Session, ...] = (),
    derived: Iterable[int] = (),
) -> str:
    """Stream a session's bars and return the digest."""
    symbols = tuple(sorted({symbol for symbol, _ in bars} | {"NONE"}))
    rows = [(*key, *values) for key, (values, _) in sorted(bars.items())]
    block = Block.empty(symbols, [*history, session], Interval(interval))
    assert block.fill(pl.DataFrame(rows, schema=frame_schema(), orient="row")) == 0
    slots = {start: slot for slot, start in enumerate(block.starts.tolist())}
    for (symbol, start), (_, flags) in bars.items():
        block.flags[symbols.index(symbol), slots[start]] = flags
    data = SessionData(symbols, session, Interval(interval), map(Interval, derived))
    data.start_session(session, block)
    return stream.SessionStream(data, strategy, lambda: None).run()


@st.composite
def sessions(draw: st.DrawFn, interval: int = MINUTE) -> Session:
    """Small sessions with every kind of segment, and pauses between them."""
    kinds: list[Kind] = ["regular"] * draw(st.integers(1, 2))
    kinds = ["pre", *kinds] if draw(st.booleans()) else kinds
    kinds = [*kinds, "post"] if draw(st.booleans()) else kinds
    segments, time = [], OPEN
    for kind in kinds:
        length, pause = draw(st.integers(1, 6)), draw(st.integers(0, 3))
        segments.append(Segment(time, time + length * interval, kind))
        time += (length + pause) * interval
    return Session(draw(st.dates(date(1970, 1, 1), date(2100, 1, 1))), tuple(segments))


FLOATS = st.floats(-1e300, 1e300).map(lambda value: value + 0.0)  # no -0.0, as in stores
BARS = st.tuples(st.tuples(FLOATS, FLOATS, FLOATS, FLOATS, FLOATS), st.integers(0, 7))


def bars_of(session: Session, interval: int = MINUTE) -> st.SearchStrategy[PlainBars]:
    """Any bars of a session: any symbols, any holes, any values and flags."""
    starts = [
        start
        for segment in session.segments
        for start in range(segment.open, segment.close, interval)
    ]
    keys = st.tuples(st.sampled_from(SYMBOLS), st.sampled_from(starts))
    return st.dictionaries(keys, BARS, max_size=40)


TIMES = st.sampled_from([2, 3, 4, 7, 10**6])
"""How many base bars a derived bar has; the last stands for 1d."""


@st.composite
def replays(draw: st.DrawFn) -> tuple[Session, int, PlainBars]:
    """A session, its interval, and bars."""
    interval = draw(st.sampled_from([MINUTE, 5 * MINUTE, MINUTE // 2]))
    session = draw(sessions(interval))
    return session, interval, draw(bars_of(session, interval))


def regular_bars(session: Session, skip: int) -> PlainBars:
    """Bars of all symbols with one in `skip` missing, each with its own values."""
    starts = [start for part in session.segments for start in range(part.open, part.close, MINUTE)]
    return {
        (symbol, start): ((10.0 + row, 11.0 + row, 9.0 + row, 10.5 + row, float(slot)), 0)
        for row, symbol in enumerate(SYMBOLS)
        for slot, start in enumerate(starts)
        if (7 * slot + row) % skip
    }


@pytest.mark.parametrize("session", [FULL_DAY, EARLY_CLOSE, HONG_KONG, EXTENDED])
@pytest.mark.parametrize("strategy", [None, Strategy(), Silent()])
def test_a_whole_day_has_the_plain_digest(session: Session, strategy: Strategy | None) -> None:
    bars = regular_bars(session, skip=11)
    derived = [5 * MINUTE, 15 * MINUTE, 60 * MINUTE, DAY]
    digest = streamed_digest(session, bars, strategy, derived=derived)
    assert digest == REFERENCE.of_session(session, MINUTE, bars, derived)
    assert digest != streamed_digest(session, bars, strategy, derived=derived[:-1])


@given(replays(), st.sampled_from([1, 7, 8192, 10**6]), st.booleans(), st.sets(TIMES, max_size=3))
@example((FULL_DAY, MINUTE, {}), 8192, True, {5})
def test_any_session_has_the_plain_digest(
    replay: tuple[Session, int, PlainBars], chunk_bars: int, watched: bool, times: set[int]
) -> None:
    session, interval, bars = replay
    derived = [min(n * interval, DAY) for n in times]
    with patch.object(stream, "_CHUNK_BARS", chunk_bars):
        strategy = Silent() if watched else None
        digest = streamed_digest(session, bars, strategy, interval, derived=derived)
    assert digest == REFERENCE.of_session(session, interval, bars, set(derived))


def test_history_before_the_session_leaves_the_digest_alone() -> None:
    days = [
        Session(date(2018, 11, day), (Segment(open_, open_ + 5 * MINUTE, "regular"),))
        for day, open_ in ((21, OPEN - 2 * 1440 * MINUTE), (23, OPEN))
    ]
    bars = regular_bars(days[1], skip=3)
    with_history = streamed_digest(days[1], bars, Silent(), history=(days[0],))
    assert with_history == REFERENCE.of_session(days[1], MINUTE, bars)


@given(st.data())
def test_any_change_of_what_was_delivered_changes_the_digest(data: st.DataObject) -> None:
    session = data.draw(sessions())
    bars = dict(data.draw(bars_of(session).filter(bool)))
    before = streamed_digest(session, bars)
    key = data.draw(st.sampled_from(sorted(bars)))
    (*values,), flags = bars[key]
    match data.draw(st.sampled_from(["bit", "flag", "hole", "session"])):
        case "bit":
            field, bit = data.draw(st.integers(0, 4)), data.draw(st.integers(0, 51))
            (word,) = struct.unpack("<Q", struct.pack("<d", values[field]))
            (values[field],) = struct.unpack("<d", struct.pack("<Q", word ^ (1 << bit)))
            bars[key] = (tuple(values), flags)
        case "flag":
            bars[key] = (tuple(values), flags ^ data.draw(st.sampled_from([1, 4])))
        case "hole":
            del bars[key]
        case "session":
            session = Session(date(1969, 12, 31), session.segments)
    assert streamed_digest(session, bars) != before


def test_whether_upkeep_filled_a_bar_leaves_the_digest_alone() -> None:
    bars = {("A", OPEN): ((1.0, 1.0, 1.0, 1.0, 1.0), 0)}
    filled = {("A", OPEN): ((1.0, 1.0, 1.0, 1.0, 1.0), FILLED)}
    assert streamed_digest(FULL_DAY, bars) == streamed_digest(FULL_DAY, filled)


def test_the_order_of_the_sessions_is_part_of_a_runs_digest() -> None:
    first, second = "00" * 15 + "01", "ff" * 16
    assert run_digest([first, second]) == REFERENCE.of_run([first, second])
    assert run_digest([first, second]) != run_digest([second, first])
    assert run_digest([]) == REFERENCE.of_run([])


TINY = Session(
    date(2018, 11, 23),
    (
        Segment(OPEN, OPEN + 2 * MINUTE, "regular"),
        Segment(OPEN + 3 * MINUTE, OPEN + 4 * MINUTE, "regular"),
    ),
)
TINY_BARS: PlainBars = {
    ("SPY", OPEN): ((264.0, 264.5, 263.75, 264.25, 1000.0), 0),
    ("BRK.B", OPEN + MINUTE): ((215.0, 215.0, 215.0, 215.0, 0.0), 1),
    ("SPY", OPEN + 3 * MINUTE): ((264.25, 265.0, 264.25, 264.5, 250.0), 2),
}
PINNED_SESSION = "392472d9c1fe9b2634a6eaa155886fb3"
PINNED_RUN = "2a3e11710193cc1934d578214c7e62cf"


def test_the_digest_stays_the_same_from_version_to_version() -> None:
    """Pinned by the reference: a change of these is a change of the record layout."""
    assert REFERENCE.of_session(TINY, MINUTE, TINY_BARS) == PINNED_SESSION
    assert streamed_digest(TINY, TINY_BARS) == PINNED_SESSION
    assert run_digest([PINNED_SESSION, PINNED_SESSION]) == PINNED_RUN


def lean_bars(path: Path, symbol: str, midnight: int) -> PlainBars:
    """Read one LEAN equity zip with the standard library: milliseconds, then 1/10000 dollars."""
    with ZipFile(path) as archive:
        lines = archive.read(archive.namelist()[0]).decode().splitlines()
    rows = [list(map(int, line.split(","))) for line in lines]
    return {
        (symbol, midnight + 1000 * ms): ((*(price / 10000 for price in prices), float(volume)), 0)
        for ms, *prices, volume in rows
    }


def test_the_installed_command_prints_the_plain_digest_of_real_bars(
    sc: Callable[..., Any], real_bars: Path
) -> None:
    folders = [real_bars / "equity/usa/minute" / symbol for symbol in ("ibm", "spy")]
    assert sc("init").code == 0
    assert sc("import", *folders, "--format", "lean").code == 0
    replay = sc("replay", "--from", "2013-10-10", "--to", "2013-10-11", "--json").document
    digests = []
    for day in (10, 11):
        midnight = parse_moment(f"2013-10-{day}T00:00:00-04:00")
        opened, closed = midnight + 570 * MINUTE, midnight + 960 * MINUTE
        session = Session(date(2013, 10, day), (Segment(opened, closed, "regular"),))
        bars: dict[tuple[str, int], PlainBar] = {}
        for folder in folders:
            (path,) = folder.glob(f"201310{day}_trade.zip")
            bars |= lean_bars(path, folder.name.upper(), midnight)
        digests.append(REFERENCE.of_session(session, MINUTE, bars, (5 * MINUTE, 15 * MINUTE)))
    assert replay["digest"] == REFERENCE.of_run(digests)
