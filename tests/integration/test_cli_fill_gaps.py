"""`sc fill-gaps` as a user runs it, on stores whose holes the tests made themselves."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import pytest

from stream_coord.calendars import open_calendar
from stream_coord.interval import MINUTE as MICROS
from stream_coord.interval import Interval
from stream_coord.stores import open_store
from stream_coord.stores.ledger import open_ledger

if TYPE_CHECKING:
    import polars as pl

ONE_MINUTE = Interval.parse("1m")
LAST = date(2018, 11, 23)
FRIDAY = str(LAST)
"""New York closes at 13:00 that day: 210 minutes."""
OPENS = int(datetime(2018, 11, 23, 14, 30, tzinfo=UTC).timestamp()) * 1_000_000
WHOLE_DAY = range(210)
PLUGIN = '''
import json
from stream_coord.bars import COLUMNS, empty_frame
from stream_coord.errors import SourceError
class Told:
    """Writes down what it is asked for; fails as long as a file says so, and has no bar."""
    def __init__(self, settings, root):
        self.root = root
    def coverage(self, interval, ranges):
        return ranges
    def bars(self, interval, ranges):
        with (self.root / "asked.txt").open("a") as file:
            for r in ranges:
                minutes = (r.end - r.start) // interval.micros
                file.write(f"{r.symbol} {r.start} {minutes}\\n")
        if (self.root / "down").exists():
            raise SourceError("it is down [bold]today[/bold]")
        return empty_frame()
    def close(self):
        pass
'''


def bars(symbol: str, minutes: Any, price: float = 10.0) -> pl.DataFrame:
    """Return flat bars of some minutes after Friday's open."""
    import polars as pl

    starts = [OPENS + minute * MICROS for minute in minutes]
    flat = {name: [price] * len(starts) for name in ("open", "high", "low", "close", "volume")}
    return pl.DataFrame(
        {"symbol": [symbol] * len(starts), "start": starts, **flat},
        schema_overrides={"symbol": pl.String, "start": pl.Int64},
    )


def without(*gone: int) -> list[int]:
    return [minute for minute in WHOLE_DAY if minute not in gone]


def put(place: Path, url: str, *frames: pl.DataFrame) -> None:
    """Put bars into a store, which is made where there is none."""
    store = open_store(url, place, create=True)
    for frame in frames:
        store.write(ONE_MINUTE, frame)
    store.close()


def stored(place: Path, url: str, symbol: str) -> list[tuple[int, float]]:
    """Return minute and close of a symbol's bars on Friday."""
    store = open_store(url, place)
    frame = store.read(ONE_MINUTE, [symbol], OPENS, OPENS + 210 * MICROS)
    store.close()
    return [((start - OPENS) // MICROS, close) for start, close in frame["start", "close"].rows()]


def settings(place: Path, *sources: tuple[str, str, str], symbols: str = "") -> None:
    """Write the settings of a place: sources as name, kind and address."""
    lines = [f"symbols = [{symbols}]", '[store]\nurl = "sqlite:///bars.db"']
    lines += ['[ledger]\nurl = "sqlite:///ledger.db"', "[upkeep]\nmax_retries = 2"]
    for name, kind, url in sources:
        lines += ["[[sources]]", f'name = "{name}"', f'kind = "{kind}"', f'url = "{url}"']
    (place / "sc.toml").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def schedules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a cache of New York's sessions, which take long to make."""
    folder = tmp_path_factory.mktemp("cache")
    open_calendar("NYSE", "regular", {}, cache_dir=folder).sessions(date(2018, 11, 1), LAST)
    return folder


@pytest.fixture
def place(tmp_path: Path, schedules: Path) -> Path:
    """Return a folder whose store lacks two runs of SPY's minutes: 5 and 6, and 209."""
    shutil.copytree(schedules, tmp_path / ".sc")
    put(tmp_path, "sqlite:///bars.db", bars("SPY", without(5, 6, 209)), bars("XOM", WHOLE_DAY))
    settings(tmp_path)
    return tmp_path


@pytest.fixture
def plugin(place: Path) -> dict[str, str]:
    """Install a plugin for the test; return the environment that finds it."""
    folder = place / "plugin"
    info = folder / "told-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "told.py").write_text(PLUGIN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: told\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[stream_coord.sources]\ntold = told:Told\n")
    return {"PYTHONPATH": str(folder)}


def asked(place: Path) -> list[tuple[str, int, int]]:
    """Return what the plugin was asked for so far: symbol, first minute, minutes."""
    try:
        lines = (place / "asked.txt").read_text().splitlines()
    except FileNotFoundError:
        return []
    rows = [line.split() for line in lines]
    return [(row[0], (int(row[1]) - OPENS) // MICROS, int(row[2])) for row in rows]


def fate(document: dict[str, Any]) -> dict[str, int]:
    """Return the numbers of a document that are not zero."""
    names = ("filled", "no_trade", "unresolved", "still_missing", "skipped", "disagreements")
    return {name: document[name] for name in names if document[name]}


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file of a folder, but what can be computed again."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".sc" not in path.parts
    }


# -- filling -------------------------------------------------------------------------------------


def test_it_fills_what_another_store_has(sc: Callable[..., Any], place: Path) -> None:
    put(place, "delta:other", bars("SPY", WHOLE_DAY, 11.0))
    settings(place, ("other", "store", "delta:other"))
    answer = sc("fill-gaps", "--json")
    assert answer.code == 0, answer.err
    document = answer.document
    assert (document["minutes_missing"], fate(document)) == (3, {"filled": 3})
    assert document["by_source"] == {"other: store delta:other": 3}
    assert (document["run"], document["dry_run"], document["failures"]) == (1, False, [])
    seen = [(gap["start"], gap["minutes"], gap["state"], gap["kind"]) for gap in document["gaps"]]
    assert seen == [
        ("2018-11-23 14:35:00Z", 2, "filled", "minutes"),
        ("2018-11-23 17:59:00Z", 1, "filled", "minutes"),
    ]
    holes = {5: 11.0, 6: 11.0, 209: 11.0}
    assert stored(place, "sqlite:///bars.db", "SPY") == [
        (minute, holes.get(minute, 10.0)) for minute in WHOLE_DAY
    ]
    again = sc("fill-gaps", "--json").document
    assert (again["minutes_missing"], fate(again), again["gaps"]) == (0, {}, document["gaps"])
    report = sc("report", "--json").document
    (row,) = [row for row in report["rows"] if row["symbol"] == "SPY"]
    assert (row["present"], row["filled"], row["quality"]) == (210, 3, 100)
    assert report["gaps"] == document["gaps"]
    runs = [(run["command"], run["status"], run["bars"], run["sessions"]) for run in report["runs"]]
    assert runs == [("fill-gaps", "done", 0, 1), ("fill-gaps", "done", 3, 1)]


def test_people_are_told_what_was_filled_from_where(sc: Callable[..., Any], place: Path) -> None:
    put(place, "delta:other", bars("SPY", without(209)))
    settings(place, ("[b]other[/x]", "store", "delta:other"))
    lines = [line.split() for line in sc("fill-gaps").out.splitlines()]
    assert lines[0][:5] == ["Filled", "2", "of", "3", "missing"]
    assert ["filled", "2"] in lines
    assert ["[b]other[/x]:", "store", "delta:other", "2"] in lines
    assert ["SPY", FRIDAY, "09:35", "09:37", "2", "filled", "[b]other[/x]"] in lines
    # The other store's newest bar is that of minute 208: beyond, it does not know.
    assert ["SPY", FRIDAY, "12:59", "13:00", "1", "missing"] in lines


def test_only_the_asked_symbols_and_sessions_are_filled(
    sc: Callable[..., Any], place: Path
) -> None:
    put(place, "delta:other", bars("SPY", WHOLE_DAY), bars("QQQ", WHOLE_DAY))
    settings(place, ("other", "store", "delta:other"))
    span = ("--from", "2018-11-21", "--to", FRIDAY)
    document = sc("fill-gaps", *span, "--symbols", "QQQ", "--json").document
    assert {gap["symbol"] for gap in document["gaps"]} == {"QQQ"}
    fates = {(gap["session"], gap["state"], gap["kind"]) for gap in document["gaps"]}
    assert fates == {("2018-11-21", "missing", "before_first"), (FRIDAY, "filled", "session")}
    assert (document["filled"], document["still_missing"]) == (210, 390)
    assert len(stored(place, "sqlite:///bars.db", "SPY")) == 207


def test_what_is_before_the_first_bar_is_told_apart(sc: Callable[..., Any], place: Path) -> None:
    put(place, "sqlite:///bars.db", bars("NEW", range(100, 210)))
    span = ("--from", "2018-11-21", "--to", FRIDAY, "--symbols", "NEW,SPY")
    for command in ("fill-gaps", "report"):
        gaps = sc(command, *span, "--json").document["gaps"]
        assert [(gap["symbol"], gap["session"], gap["minutes"], gap["kind"]) for gap in gaps] == [
            ("NEW", "2018-11-21", 390, "before_first"),
            ("SPY", "2018-11-21", 390, "before_first"),
            ("NEW", FRIDAY, 100, "before_first"),
            ("SPY", FRIDAY, 2, "minutes"),
            ("SPY", FRIDAY, 1, "minutes"),
        ]


def test_minutes_that_are_not_over_are_not_missing(sc: Callable[..., Any], place: Path) -> None:
    """Half past nine and six minutes in New York; then with five minutes of grace."""
    now = ("--now", "2018-11-23T09:36:00-05:00", "--json")
    assert sc("fill-gaps", *now).document["minutes_missing"] == 1
    grace = ("--set", "upkeep.grace_seconds=300", "--dry-run")
    assert (
        sc("fill-gaps", *grace, *now, "--set", "ledger.url=sqlite:///no.db").document[
            "minutes_missing"
        ]
        == 0
    )


# -- explained, failed, given up -----------------------------------------------------------------


def test_what_every_source_confirmed_empty_is_asked_for_once(
    sc: Callable[..., Any], place: Path, plugin: dict[str, str]
) -> None:
    settings(place, ("told", "told", "x"))
    document = sc("fill-gaps", "--json", **plugin).document
    assert (document["minutes_missing"], fate(document)) == (3, {"no_trade": 3})
    assert asked(place) == [("SPY", 5, 2), ("SPY", 209, 1)]
    again = sc("fill-gaps", "--json", **plugin).document
    assert (again["minutes_missing"], fate(again)) == (3, {"no_trade": 3, "skipped": 3})
    assert len(asked(place)) == 2
    report = sc("report", "--fail-under", "100", "--json")
    assert report.code == 0, report.err
    (row,) = [row for row in report.document["rows"] if row["symbol"] == "SPY"]
    assert (row["missing"], row["no_trade"], row["coverage"]) == (0, 3, 100)
    assert row["quality"] == pytest.approx(100 * 207 / 210)
    assert {gap["state"] for gap in report.document["gaps"]} == {"no_trade"}

    sc("fill-gaps", "--reopen", **plugin)
    assert asked(place)[2:] == [("SPY", 5, 2), ("SPY", 209, 1)]
    # A new source may have them; who has said no need not be asked again.
    put(place, "delta:other", bars("SPY", WHOLE_DAY))
    settings(place, ("told", "told", "x"), ("other", "store", "delta:other"))
    document = sc("fill-gaps", "--json", **plugin).document
    assert fate(document) == {"filled": 3}
    assert len(asked(place)) == 4
    with open_ledger("sqlite:///ledger.db", place) as ledger:
        calls = [
            (call.run_id, call.source, call.minutes, call.bars) for call in ledger.source_calls()
        ]
    told = "told: told x"
    assert calls == [(1, told, 3, 0), (3, told, 3, 0), (4, "other: store delta:other", 3, 3)]


def test_a_failing_source_is_heard_of_and_stops_nothing(
    sc: Callable[..., Any], place: Path, plugin: dict[str, str]
) -> None:
    (place / "down").touch()
    put(place, "delta:other", bars("SPY", without(5, 6)))
    settings(place, ("told", "told", "x"), ("other", "store", "delta:other"))
    answer = sc("fill-gaps", "--json", **plugin)
    assert answer.code == 1
    document = answer.document
    assert fate(document) == {"filled": 1, "still_missing": 2}
    (said,) = document["failures"]
    assert said.startswith("told: told x: ")
    assert said.endswith("it is down [bold]today[/bold]")
    assert answer.err.splitlines() == [f"Failed: {said}"]
    (gap,) = [gap for gap in document["gaps"] if gap["state"] == "missing"]
    assert (gap["minutes"], gap["tries"]) == (2, 1)
    # The second try is the last one, as max_retries says.
    answer = sc("fill-gaps", "--quiet", **plugin)
    assert (answer.code, answer.out) == (1, "")
    assert "it is down" in answer.err
    answer = sc("fill-gaps", "--json", **plugin)
    assert answer.code == 0
    assert fate(answer.document) == {"unresolved": 2, "skipped": 2}
    (place / "down").unlink()
    assert fate(sc("fill-gaps", "--reopen", "--json", **plugin).document) == {"no_trade": 2}


def test_where_sources_disagree_the_first_wins_and_both_are_kept(
    sc: Callable[..., Any], place: Path
) -> None:
    put(place, "delta:first", bars("SPY", without(209), 11.0))
    put(place, "delta:second", bars("SPY", [5, 209], 12.0), bars("SPY", [6], 11.0))
    settings(place, ("first", "store", "delta:first"), ("second", "store", "delta:second"))
    answer = sc("fill-gaps")
    assert answer.code == 0
    assert "Sources have different bars of 1 minute: the ledger keeps both." in answer.out
    closes = dict(stored(place, "sqlite:///bars.db", "SPY"))
    assert (closes[5], closes[6], closes[209]) == (11.0, 11.0, 12.0)
    with open_ledger("sqlite:///ledger.db", place) as ledger:
        (row,) = ledger.disagreements()
    assert (row.start - OPENS) // MICROS == 5
    assert (row.source, row.other) == ("first: store delta:first", "second: store delta:second")
    assert (row.values, row.other_values) == ((11.0,) * 5, (12.0,) * 5)


def test_without_sources_gaps_are_found_and_remembered(sc: Callable[..., Any], place: Path) -> None:
    answer = sc("fill-gaps", "--json")
    assert answer.code == 0
    assert "[[sources]]" in answer.err
    assert fate(answer.document) == {"still_missing": 3}
    with open_ledger("sqlite:///ledger.db", place) as ledger:
        states = [
            (gap.symbol, gap.minutes, gap.state) for gap in ledger.gap_states("1m", FRIDAY, FRIDAY)
        ]
    assert states == [("SPY", 2, "missing"), ("SPY", 1, "missing")]
    assert sc("fill-gaps", "--quiet").err == ""


# -- leaving things as they are ------------------------------------------------------------------


@pytest.mark.parametrize("known", [True, False], ids=["with-ledger", "without"])
def test_a_dry_run_leaves_every_file_as_it_is(
    sc: Callable[..., Any], place: Path, known: bool
) -> None:
    put(place, "delta:other", bars("SPY", without(209)))
    if known:
        sc("fill-gaps")
    settings(place, ("other", "store", "delta:other"))
    before = contents(place)
    assert ("ledger.db" in before) is known
    answer = sc("fill-gaps", "--dry-run", "--json")
    assert answer.code == 0, answer.err
    document = answer.document
    assert (document["run"], document["dry_run"]) == (None, True)
    assert fate(document) == {"filled": 2, "still_missing": 1}
    assert contents(place) == before


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--from", "2018-11-31"), 2, "2018-11-31"),
        (("--from", FRIDAY, "--to", "2018-11-21"), 2, "is empty"),
        (("--symbols", "../B"), 2, "'../B'"),
        (("--set", "upkeep.max_retries=-1"), 2, "max_retries"),
        (("--set", "store.url=sqlite:///none.db"), 1, "none.db"),
        (("--set", 'sources=[{name="a",kind="stor",url="x"}]'), 2, "did you mean 'store'"),
        (("--set", 'sources=[{name="a",kind="csv"}]'), 2, "path"),
        (("--set", 'sources=[{name="a",kind="store",url="sqlite:///bars.db"}]'), 2, "its own"),
        (("--session", FRIDAY), 2, "--session"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(
    sc: Callable[..., Any], place: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    before = contents(place)
    answer = sc("fill-gaps", *arguments)
    assert answer.code == code, answer.err
    assert words in answer.err
    assert not answer.out
    after = contents(place)
    after.pop("ledger.db", None)  # it may be made before a source turns out to be none
    assert after == before


@pytest.mark.parametrize("at", [0, 1])
def test_an_interrupt_keeps_what_is_filled_and_says_so(
    sc: Callable[..., Any], place: Path, at: int
) -> None:
    """Stopped as the first or the second session of two is about to be stored.

    One minute of the first was filled by an earlier run.
    """
    code = """
        import os, signal, sys
        from stream_coord.cli import main
        from stream_coord.stores.sql import SqlStore
        from stream_coord.upkeep import fill
        fill.BATCH_MINUTES = 1
        write, at, writes = SqlStore.write, int(sys.argv[1]), []
        def stopped(*args, **options):
            if len(writes) == at:
                os.kill(os.getpid(), signal.SIGINT)
            writes.append(write(*args, **options))
            return writes[-1]
        SqlStore.write = stopped
        sys.argv[:2] = ["sc"]
        main()
    """
    span = ("fill-gaps", "--from", "2018-11-21", "--to", FRIDAY, "--symbols", "SPY")
    put(place, "delta:one", bars("SPY", [-2 * 1440]))
    settings(place, ("one", "store", "delta:one"))
    assert sc(*span, "--json").document["filled"] == 1
    put(place, "delta:other", bars("SPY", range(-3 * 1440, 210)))
    settings(place, ("other", "store", "delta:other"))
    command = [sys.executable, "-c", dedent(code), str(at), *span]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 130, done.stderr
    assert not done.stdout
    filled = 389 * at
    said = "389 minutes are filled and stay" if at else "before any minute was filled"
    assert said in done.stderr
    with open_ledger("sqlite:///ledger.db", place) as ledger:
        run, _ = ledger.runs()
    assert (run.status, run.bars, run.sessions) == ("interrupted", filled, at)
    document = sc(*span, "--json").document
    assert (document["minutes_missing"], document["filled"]) == (392 - filled,) * 2
    assert len(stored(place, "sqlite:///bars.db", "SPY")) == 210
