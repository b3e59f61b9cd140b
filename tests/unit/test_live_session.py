"""A session store that a feed fills, as the settings say: real store, ledger and calendar."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import pytest

from stream_coord.bars import frame_schema
from stream_coord.clock import FixedClock, SystemTimer, parse_moment
from stream_coord.config import Config, load_config
from stream_coord.errors import CalendarError, StoreMissingError, UsageError
from stream_coord.interval import MINUTE, SECOND, Interval
from stream_coord.live import LiveSession, live_session, monitor_settings
from stream_coord.opening import calendar_of
from stream_coord.session.boundaries import StateChange
from stream_coord.stores import open_store
from stream_coord.stores.ledger import open_ledger

ONE_MINUTE = Interval(MINUTE)
WEDNESDAY = parse_moment("2018-11-21T14:30:00Z")
FRIDAY = parse_moment("2018-11-23T14:30:00Z")  # Thanksgiving lies between; closes at 18:00Z
SETTINGS = """
symbols = ["A", "B"]
[history]
trailing_days = 2
[session]
timeout_seconds = 120
post_market_roll_delay_minutes = 45
"""


class Asleep(SystemTimer):
    """Lets the monitor's thread sleep until it is stopped: the test looks by itself."""

    def sleep(self, seconds: float) -> None:
        super().sleep(max(seconds, 3600.0))


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "sc.toml").write_text(SETTINGS)
    store = open_store("delta:data/bars", tmp_path, create=True)
    rows = [("A", WEDNESDAY + n * MINUTE, 1.0, 1.0, 1.0, 1.0, float(n)) for n in range(390)]
    store.write(ONE_MINUTE, pl.DataFrame(rows, schema=frame_schema(), orient="row"))
    return load_config(tmp_path / "sc.toml")


@contextmanager
def living(config: Config, clock: FixedClock) -> Iterator[tuple[LiveSession, list[StateChange]]]:
    told: list[StateChange] = []
    with live_session(config, clock, Asleep(), told.append) as live:
        yield live, told


def test_it_begins_with_history_and_ends_with_a_record(config: Config) -> None:
    clock = FixedClock(FRIDAY - 600 * SECOND)
    with living(config, clock) as (live, _):
        assert [str(session.date) for session in live.data.sessions] == [
            "2018-11-20",
            "2018-11-21",
            "2018-11-23",
        ]
        assert len(live.data.all_bars("A")) == 390
        assert len(live.data.all_bars("A", "5m")) == 78
        live.data.add_bar("A", FRIDAY, (2.0, 2.0, 2.0, 2.0, 7.0))
        for seconds in (0, 60, 179, 180):
            clock.set(FRIDAY + seconds * SECOND)
            live.monitor.look()
        assert live.data.last_n("A", 2).volume.tolist() == [389.0, 7.0]
        clock.set(FRIDAY + 255 * MINUTE)  # 45 minutes after the early close
        live.monitor.look()
        assert str(live.data.session.date) == "2018-11-26"
        assert live.data.count("A") == 391
    with open_ledger("sqlite:///data/ledger.db", config.root) as ledger:
        run = ledger.runs()[0]
        assert (run.command, run.status, run.sessions) == ("live", "done", 1)
        rows = [
            (row.session, (row.time - FRIDAY) // SECOND, row.entered) for row in ledger.states()
        ]
    assert rows == [
        ("2018-11-23", 0, "ACTIVE"),
        ("2018-11-23", 180, "TIMEOUT"),
        ("2018-11-23", 210 * 60, "ENDED"),
    ]


def test_who_was_asked_is_on_record_at_each_look(config: Config, tmp_path: Path) -> None:
    """Also where the state stays as it is, and where sources disagree."""
    with (tmp_path / "sc.toml").open("a") as file:
        for name, price in (("one", 3.0), ("two", 4.0)):
            store = open_store(f"sqlite:///{name}.db", tmp_path, create=True)
            rows = [("A", FRIDAY + n * MINUTE, *(price,) * 4, 1.0) for n in range(5)]
            store.write(ONE_MINUTE, pl.DataFrame(rows, schema=frame_schema(), orient="row"))
            store.close()
            file.write(
                f'[[sources]]\nname = "{name}"\nkind = "store"\nurl = "sqlite:///{name}.db"\n'
            )
    sets = ['symbols=["A"]', "session.timeout_seconds=3600"]
    config = load_config(tmp_path / "sc.toml", sets=sets)
    clock = FixedClock(FRIDAY)
    with (
        living(config, clock) as (live, told),
        open_ledger("sqlite:///data/ledger.db", config.root) as ledger,
    ):
        live.monitor.look()
        assert ledger.source_calls() == []
        for minute in (1, 2):
            clock.set(FRIDAY + minute * MINUTE)
            live.monitor.look()
            assert len(ledger.source_calls(live.run)) == 2 * minute
        assert len(told) == 1
        told_of = [
            (row.start, row.values[3], row.other_values[3]) for row in ledger.disagreements()
        ]
        assert told_of == [(FRIDAY, 3.0, 4.0), (FRIDAY + MINUTE, 3.0, 4.0)]
        assert live.data.last_n("A", 2).close.tolist() == [3.0, 3.0]


def test_a_session_under_way_goes_on(config: Config) -> None:
    with living(config, FixedClock(FRIDAY + MINUTE)) as (live, _):
        assert str(live.data.session.date) == "2018-11-23"
    with living(config, FixedClock(FRIDAY + 210 * MINUTE)) as (live, _):
        assert str(live.data.session.date) == "2018-11-26"


def test_what_is_raised_inside_is_on_record(config: Config) -> None:
    with (
        pytest.raises(ValueError, match="the feed broke"),
        living(config, FixedClock(FRIDAY)),
    ):
        raise ValueError("the feed broke")
    with open_ledger("sqlite:///data/ledger.db", config.root) as ledger:
        run = ledger.runs()[0]
        assert (run.status, run.error) == ("failed", "ValueError: the feed broke")


def test_the_settings_say_how(config: Config, tmp_path: Path) -> None:
    chosen = monitor_settings(config)
    assert (chosen.timeout_micros, chosen.check_micros) == (120 * SECOND, 60 * SECOND)
    assert (chosen.roll_delay_micros, chosen.auto_roll) == (45 * MINUTE, True)
    (tmp_path / "sc.toml").write_text('[session]\nauto_roll = false\n[store]\nurl = "delta:none"')
    bare = load_config(tmp_path / "sc.toml")
    assert not monitor_settings(bare).auto_roll
    with pytest.raises(UsageError, match="list no symbols"), living(bare, FixedClock(FRIDAY)):
        pass
    listed = load_config(tmp_path / "sc.toml", sets=['symbols=["A"]'])
    with pytest.raises(StoreMissingError), living(listed, FixedClock(FRIDAY)):
        pass
    assert not (tmp_path / "data/ledger.db").exists()


def test_the_session_from_a_moment_on(config: Config) -> None:
    calendar = calendar_of(config)
    for moment, day in (
        ("2018-11-21T20:59:59Z", "2018-11-21"),
        ("2018-11-21T21:00:00Z", "2018-11-23"),  # it is over at its end
        ("2018-11-22T12:00:00Z", "2018-11-23"),
        ("2018-11-23T18:00:00Z", "2018-11-26"),
    ):
        assert str(calendar.session_from(parse_moment(moment)).date) == day
    with pytest.raises(CalendarError, match="no session after 2101"):
        calendar.session_from(parse_moment("2100-12-31T00:00:00Z") + 40 * 1440 * MINUTE)
