"""The sample bars, read with the csv module and judged by rules spelt out here once more."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from itertools import groupby, pairwise
from pathlib import Path
from statistics import correlation, fmean, median, pstdev
from typing import TypedDict
from zoneinfo import ZoneInfo

import pytest

from stream_coord.calendars import Calendar, open_calendar
from stream_coord.demo import write_demo
from stream_coord.errors import StreamCoordError, UsageError

NEW_YORK = ZoneInfo("America/New_York")
SESSIONS = [date(2018, 11, day) for day in (2, 5, 6, 7, 8, 9, 12, 13, 14, 15, 16, 19, 20, 21, 23)]
HEADER = ["symbol", "time", "open", "high", "low", "close", "volume"]
REASONS = {
    "bad-line",
    "unparsable",
    "out-of-range",
    "misaligned",
    "nonexistent-time",
    "ambiguous-time",
    "bad-symbol",
    "not-finite",
    "high-too-low",
    "low-too-high",
    "nonpositive-price",
    "negative-volume",
}

Key = tuple[str, datetime]
Values = tuple[float, ...]
Span = tuple[str, str, int, int]
"""Symbol, session, UTC microseconds of the first minute, minutes."""


class Entry(TypedDict, total=False):
    kind: str
    symbol: str
    session: str
    start: str
    start_micros: int
    minutes: int
    file: str
    rows: list[int]
    reason: str
    line: str
    old: list[float]
    new: list[float]


class SymbolSession(TypedDict):
    symbol: str
    session: str
    expected: int
    present: int
    missing: int
    late: int


class Truth(TypedDict):
    seed: int
    time_zone: str
    label: str
    interval: str
    symbols: list[str]
    imports: dict[str, dict[str, int]]
    files: dict[str, dict[str, int]]
    symbol_sessions: list[SymbolSession]
    gaps: list[Entry]
    late: list[Entry]
    duplicates: list[Entry]
    superseded: list[Entry]
    revisions: list[Entry]
    rejects: list[Entry]


# --- an importer of our own, row by row ----------------------------------------------------------


@cache
def judge_time(text: str) -> datetime | str:
    """Return the UTC time of a local one, or what is wrong with it."""
    try:
        local = datetime.strptime(text, "%Y-%m-%d %H:%M:%S").replace(tzinfo=NEW_YORK)
    except ValueError:
        return "unparsable"
    utc = local.astimezone(UTC)
    if utc.astimezone(NEW_YORK).replace(tzinfo=None) != local.replace(tzinfo=None):
        return "nonexistent-time"
    if local.utcoffset() != local.replace(fold=1).utcoffset():
        return "ambiguous-time"
    if utc.year < 1970:
        return "out-of-range"
    return "misaligned" if utc.second else utc


@cache
def is_symbol(text: str) -> bool:
    return re.fullmatch(r"[A-Z]+(\.[A-Z]+)?", text) is not None


def judge_values(open_: float, high: float, low: float, close: float, volume: float) -> set[str]:
    """Return what is wrong with numbers."""
    if not all(map(math.isfinite, (open_, high, low, close, volume))):
        return {"not-finite"}
    rules = {
        "high-too-low": high < open_ or high < close or high < low,
        "low-too-high": (low > open_ or low > close) and low <= high,
        "nonpositive-price": open_ <= 0 or high <= 0 or low <= 0 or close <= 0,
        "negative-volume": volume < 0,
    }
    return {reason for reason, broken in rules.items() if broken}


def judge(fields: list[str]) -> tuple[Key, Values] | set[str]:
    """Return a row as a bar, or all that is wrong with it."""
    if len(fields) != len(HEADER):
        return {"bad-line"}
    symbol, time_text, *numbers = fields
    start = judge_time(time_text)
    try:
        values = tuple(map(float, numbers))
        wrong = judge_values(*values)
    except ValueError:
        wrong = {"unparsable"}
    if not is_symbol(symbol):
        wrong.add("bad-symbol")
    if isinstance(start, str):
        return {*wrong, start}
    return wrong or ((symbol, start), values)


@dataclass
class Sample:
    """The files and what importing them one after the other gives."""

    folder: Path
    truth: Truth
    lines: dict[str, list[str]] = field(default_factory=dict)
    stored: dict[Key, Values] = field(default_factory=dict)
    counts: dict[str, Counter[str]] = field(default_factory=dict)
    missing_before: set[Span] = field(default_factory=set)
    missing_after: set[Span] = field(default_factory=set)
    before_corrections: dict[Key, Values] = field(default_factory=dict)

    def load(self) -> None:
        for path in sorted((self.folder / "bars").iterdir()):
            self.load_file(path)
        self.missing_before = set(self.missing())
        self.before_corrections = dict(self.stored)
        for path in sorted((self.folder / "corrections").iterdir()):
            self.load_file(path)
        self.missing_after = set(self.missing())

    def load_file(self, path: Path) -> None:
        name = path.relative_to(self.folder).as_posix()
        self.lines[name] = path.read_text(encoding="ascii").split("\n")
        with path.open(newline="", encoding="ascii") as file:
            header, *rows = csv.reader(file)
        assert header == HEADER
        counts = self.counts[name] = Counter(rows=len(rows))
        latest: dict[Key, Values] = {}
        for row in rows:
            judged = judge(row)
            if isinstance(judged, set):
                counts["rejected"] += 1
                continue
            key, values = judged
            counts["duplicates"] += key in latest
            counts["superseded"] += latest.get(key, values) != values
            latest[key] = values
        for key, values in latest.items():
            old = self.stored.get(key)
            kind = "stored" if old is None else "duplicates" if old == values else "revised"
            counts[kind] += 1
            counts["out_of_session"] += not is_regular(key[1])
        self.stored.update(latest)

    def missing(self) -> Iterator[Span]:
        """Yield the maximal runs of grid minutes without a bar."""
        for symbol in self.truth["symbols"]:
            for day in SESSIONS:
                grid = list(grid_of(day))
                holes = [n for n, start in enumerate(grid) if (symbol, start) not in self.stored]
                for _, run in groupby(enumerate(holes), lambda pair: pair[1] - pair[0]):
                    numbers = [number for _, number in run]
                    yield symbol, str(day), micros(grid[numbers[0]]), len(numbers)

    def key_at(self, file: str, row: int) -> tuple[Key, Values]:
        """Return the bar in a line."""
        judged = judge(self.lines[file][row - 1].split(","))
        assert isinstance(judged, tuple)
        return judged


@cache
def grid_of(day: date) -> dict[datetime, None]:
    """Return the minutes of a session, as an ordered set."""
    last = time(13) if day == date(2018, 11, 23) else time(16)
    start = datetime.combine(day, time(9, 30), NEW_YORK).astimezone(UTC)
    end = datetime.combine(day, last, NEW_YORK).astimezone(UTC)
    minutes = (end - start) // timedelta(minutes=1)
    return dict.fromkeys(start + timedelta(minutes=n) for n in range(minutes))


@cache
def is_regular(start: datetime) -> bool:
    return start in grid_of(start.astimezone(NEW_YORK).date())


def micros(moment: datetime) -> int:
    return round(moment.timestamp()) * 1_000_000


def span(entry: Entry) -> Span:
    return entry["symbol"], entry["session"], entry["start_micros"], entry["minutes"]


def keys(entry: Entry) -> list[Key]:
    first = datetime.fromisoformat(entry["start"])
    minutes = range(entry["minutes"])
    return [(entry["symbol"], first + timedelta(minutes=minute)) for minute in minutes]


@pytest.fixture(scope="module")
def nyse() -> Calendar:
    return open_calendar("NYSE")


def load(folder: Path, calendar: Calendar, seed: int, symbols: int) -> Sample:
    files = write_demo(folder, calendar, seed=seed, symbols=symbols)
    sample = Sample(folder, json.loads(files.truth.read_text(encoding="utf-8")))
    sample.load()
    return sample


@pytest.fixture(
    scope="module", params=[(2018, 20), (7, 10)], ids=["seed 2018", "seed 7, 10 symbols"]
)
def sample(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, nyse: Calendar
) -> Sample:
    seed, symbols = request.param
    return load(tmp_path_factory.mktemp("demo"), nyse, seed, symbols)


def content(folder: Path) -> dict[str, bytes]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


# --- the truth -----------------------------------------------------------------------------------


def test_there_is_a_file_for_each_of_15_sessions(sample: Sample) -> None:
    assert [name for name in sample.lines if name.startswith("bars/")] == [
        f"bars/{day}.csv" for day in SESSIONS
    ]
    assert set(sample.truth["files"]) == set(sample.lines)


def test_every_symbol_session_is_counted_right(sample: Sample) -> None:
    rows = sample.truth["symbol_sessions"]
    assert [(row["symbol"], row["session"]) for row in rows] == [
        (symbol, str(day)) for symbol in sample.truth["symbols"] for day in SESSIONS
    ]
    for row in rows:
        grid = grid_of(date.fromisoformat(row["session"]))
        wanted = [(row["symbol"], start) for start in grid]
        present = sum(key in sample.stored for key in wanted)
        late = present - sum(key in sample.before_corrections for key in wanted)
        assert row["expected"] == (210 if row["session"] == "2018-11-23" else 390)
        assert (row["present"], row["late"]) == (present, late)
        assert row["missing"] == row["expected"] - present


def test_importing_the_bars_and_then_the_corrections_gives_the_counts(sample: Sample) -> None:
    for name, counts in sample.truth["files"].items():
        assert {kind: n for kind, n in counts.items() if n} == {
            kind: n for kind, n in sample.counts[name].items() if n
        }, name
    for folder, counts in sample.truth["imports"].items():
        files = [n for name, n in sample.counts.items() if name.startswith(f"{folder}/")]
        assert counts == {kind: sum(file[kind] for file in files) for kind in counts}
        assert counts["rows"] == sum(
            counts[kind] for kind in ("stored", "duplicates", "revised", "rejected")
        )
    assert list(sample.truth["imports"]) == ["bars", "corrections"]


def test_gaps_are_the_maximal_runs_that_stay(sample: Sample) -> None:
    gaps = sample.truth["gaps"]
    assert len(gaps) == len(sample.missing_after)
    assert set(map(span, gaps)) == sample.missing_after


def test_what_is_late_is_a_gap_until_the_corrections_come(sample: Sample) -> None:
    spans = list(map(span, sample.truth["gaps"] + sample.truth["late"]))
    assert len(spans) == len(sample.missing_before)
    assert set(spans) == sample.missing_before
    for entry in sample.truth["late"]:
        assert [sample.key_at(entry["file"], row)[0] for row in entry["rows"]] == keys(entry)
        assert entry["file"].startswith("corrections/")


def test_gaps_are_of_every_kind_and_where_the_kind_says(sample: Sample) -> None:
    by_kind: dict[str, list[Entry]] = {}
    for entry in sample.truth["gaps"]:
        by_kind.setdefault(entry["kind"], []).append(entry)
    assert set(by_kind) == {"minute", "run", "open", "close", "session", "not-listed", "rejected"}
    for kind, entries in by_kind.items():
        for entry in entries:
            grid = list(grid_of(date.fromisoformat(entry["session"])))
            first, last = keys(entry)[0][1] == grid[0], keys(entry)[-1][1] == grid[-1]
            whole = kind in {"session", "not-listed"}
            assert (first, last) == (kind == "open" or whole, kind == "close" or whole), entry
    assert all(entry["minutes"] == 1 for entry in by_kind["minute"] + by_kind["rejected"])
    assert all(entry["minutes"] > 1 for entry in by_kind["run"])
    first_week = [str(day) for day in SESSIONS if day < date(2018, 11, 12)]
    assert [entry["session"] for entry in by_kind["not-listed"]] == first_week
    assert len({entry["symbol"] for entry in by_kind["not-listed"]}) == 1


def test_duplicates_are_the_same_line_twice(sample: Sample) -> None:
    in_bars = [entry for entry in sample.truth["duplicates"] if entry["file"].startswith("bars/")]
    assert len(in_bars) >= 5
    for entry in in_bars:
        lines = sample.lines[entry["file"]]
        first, second = entry["rows"]
        assert lines[first - 1] == lines[second - 1]
        assert lines.count(lines[first - 1]) == 2
        assert sample.key_at(entry["file"], first)[0] == keys(entry)[0]


def test_the_corrections_repeat_stored_bars(sample: Sample) -> None:
    repeated = [e for e in sample.truth["duplicates"] if e["file"].startswith("corrections/")]
    assert repeated
    for entry in repeated:
        (row,) = entry["rows"]
        key, values = sample.key_at(entry["file"], row)
        assert key == keys(entry)[0]
        assert sample.before_corrections[key] == values


def test_superseded_rows_come_before_the_row_that_stays(sample: Sample) -> None:
    assert sample.truth["superseded"]
    for entry in sample.truth["superseded"]:
        first, second = entry["rows"]
        (key,) = keys(entry)
        assert first < second
        assert sample.key_at(entry["file"], first) == (key, tuple(entry["old"]))
        assert sample.key_at(entry["file"], second) == (key, tuple(entry["new"]))
        assert entry["old"] != entry["new"]


def test_revisions_replace_what_the_bars_say(sample: Sample) -> None:
    assert sample.truth["revisions"]
    for entry in sample.truth["revisions"]:
        (key,), (row,) = keys(entry), entry["rows"]
        assert sample.before_corrections[key] == tuple(entry["old"])
        assert sample.key_at(entry["file"], row) == (key, tuple(entry["new"]))
        assert entry["old"] != entry["new"]


def test_rejects_are_bad_for_their_reason_alone(sample: Sample) -> None:
    for entry in sample.truth["rejects"]:
        (row,) = entry["rows"]
        assert sample.lines[entry["file"]][row - 1] == entry["line"]
        assert judge(entry["line"].split(",")) == {entry["reason"]}
    assert {entry["reason"] for entry in sample.truth["rejects"]} == REASONS
    assert {entry["file"].split("/")[0] for entry in sample.truth["rejects"]} == {
        "bars",
        "corrections",
    }


def test_starts_are_the_same_in_text_and_in_microseconds(sample: Sample) -> None:
    truth = sample.truth
    for entries in (truth["gaps"], truth["late"], truth["revisions"], truth["rejects"]):
        for entry in entries:
            start = datetime.fromisoformat(entry["start"])
            assert micros(start) == entry["start_micros"]
            assert str(start.astimezone(NEW_YORK).date()) == entry["session"]


# --- the market ----------------------------------------------------------------------------------


def test_prices_are_in_cents_and_rows_in_the_order_of_time(sample: Sample) -> None:
    row = re.compile(r"[A-Z.]+,(2018-[0-9: -]+)(?:,\d+\.\d\d){4},[1-9]\d*")
    rejects = {entry["line"] for entry in sample.truth["rejects"]}
    for name, (_, *lines, rest) in sample.lines.items():
        matches = [row.fullmatch(line) for line in lines if line not in rejects]
        times = [match[1] for match in matches if match]
        assert len(times) == len(matches)
        assert rest == ""
        disorder = sum(late < early for early, late in pairwise(times))
        assert disorder <= sample.counts[name]["duplicates"]


def test_bars_outside_the_session_are_few_and_of_a_few_symbols(sample: Sample) -> None:
    outside = [
        (symbol, start.astimezone(NEW_YORK))
        for symbol, start in sample.stored
        if not is_regular(start)
    ]
    assert len({symbol for symbol, _ in outside}) == 3
    assert {local.date() for _, local in outside if local.hour < 10} == set(SESSIONS)
    assert {local.date() for _, local in outside if local.hour > 12} == set(SESSIONS)
    assert len(outside) < 0.01 * len(sample.stored)


def full_days(sample: Sample) -> Iterable[tuple[str, list[Values]]]:
    """Yield the bars of each symbol's sessions of 390 minutes without a gap."""
    for symbol in sample.truth["symbols"]:
        for day in SESSIONS[:-1]:
            bars = [sample.stored.get((symbol, start)) for start in grid_of(day)]
            present = [bar for bar in bars if bar is not None]
            if len(present) == 390:
                yield symbol, present


def test_volume_smiles(sample: Sample) -> None:
    for edge in (slice(0, 30), slice(360, 390)):
        ratios = [
            fmean(bar[4] for bar in bars[edge]) / fmean(bar[4] for bar in bars[180:210])
            for _, bars in full_days(sample)
        ]
        assert median(ratios) > 2


def test_symbols_differ_in_price_volume_and_volatility(sample: Sample) -> None:
    days = dict(full_days(sample))
    assert len(days) == len(sample.truth["symbols"])
    prices = [bars[0][0] for bars in days.values()]
    volumes = [fmean(bar[4] for bar in bars) for bars in days.values()]
    volatilities = [pstdev(returns(bars)) for bars in days.values()]
    for figures in (prices, volumes, volatilities):
        assert max(figures) > 1.5 * min(figures)


def returns(bars: list[Values]) -> list[float]:
    return [math.log(bar[3] / before[3]) for before, bar in pairwise(bars)]


def test_symbols_share_a_market(sample: Sample) -> None:
    day = [
        returns(
            [bar for start in grid_of(SESSIONS[7]) if (bar := sample.stored.get((name, start)))]
        )
        for name in sample.truth["symbols"]
    ]
    whole = [moves for moves in day if len(moves) == 389]
    pairs = [correlation(a, b) for n, a in enumerate(whole) for b in whole[:n]]
    assert 0.05 < fmean(pairs) < 0.9


def test_prices_jump_over_night(sample: Sample) -> None:
    jumps, moves = [], []
    for symbol in sample.truth["symbols"]:
        for day, following in pairwise(SESSIONS):
            close = sample.stored.get((symbol, list(grid_of(day))[-1]))
            opening = [sample.stored.get((symbol, start)) for start in grid_of(following)]
            if close and opening[0]:
                jumps.append(abs(math.log(opening[0][0] / close[3])))
                moves += [abs(math.log(bar[3] / bar[0])) for bar in opening if bar]
    assert fmean(jumps) > 3 * fmean(moves)


# --- the writing ---------------------------------------------------------------------------------


def test_a_seed_gives_the_same_bytes_and_another_seed_others(
    tmp_path: Path, nyse: Calendar
) -> None:
    extended = open_calendar("NYSE", "extended")
    write_demo(tmp_path / "a", nyse, seed=3, symbols=10)
    write_demo(tmp_path / "b", extended, seed=3, symbols=10)
    write_demo(tmp_path / "c", nyse, seed=4, symbols=10)
    a, b, c = (content(tmp_path / name) for name in "abc")
    assert a == b
    assert len(a) == 17
    assert a.keys() == c.keys()
    assert all(a[name] != c[name] for name in a)


def test_the_bytes_are_those_of_every_other_machine(tmp_path: Path, nyse: Calendar) -> None:
    """It changes only with the made-up market itself, which then is another one for everybody."""
    write_demo(tmp_path, nyse)
    digest = hashlib.sha256()
    for name, data in content(tmp_path).items():
        digest.update(name.encode() + data)
    assert digest.hexdigest() == (
        "e4f98448aac629feadb69aab1e3694582bbc4e5c845dd381b93318ee50f21179"
    )


@pytest.mark.parametrize(
    ("seed", "symbols"), [(1, 9), (1, 201), (-1, 20)], ids=["too few", "too many", "seed below 0"]
)
def test_numbers_out_of_range_are_refused(
    tmp_path: Path, nyse: Calendar, seed: int, symbols: int
) -> None:
    with pytest.raises(UsageError, match=f"{symbols} symbols with seed {seed}"):
        write_demo(tmp_path, nyse, seed=seed, symbols=symbols)
    assert not list(tmp_path.iterdir())


def test_another_calendar_is_refused(tmp_path: Path) -> None:
    closed = open_calendar("NYSE", overrides={"2018-11-08": "closed"})
    for calendar, sessions in ((open_calendar("LSE"), 16), (closed, 14)):
        with pytest.raises(UsageError, match=f"{calendar.name} has {sessions} sessions"):
            write_demo(tmp_path, calendar)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, nyse: Calendar) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    with pytest.raises(StreamCoordError, match="cannot be written") as caught:
        write_demo(blocked, nyse, symbols=10)
    assert str(blocked) in str(caught.value)
