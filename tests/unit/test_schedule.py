"""The library's schedule: what is made of its table, and the copy on disk."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from xxhash import xxh3_128_digest

from stream_coord.calendars import open_calendar
from stream_coord.calendars import schedule as schedules
from stream_coord.calendars.schedule import (
    MISSING,
    Schedule,
    installed_versions,
    library_schedule,
    tidy,
)
from stream_coord.errors import CalendarError
from stream_coord.interval import HOUR

VERSIONS = installed_versions()
ALWAYS = "24/7"  # the quickest to compute


def same(first: Schedule, second: Schedule) -> bool:
    return (
        first.zone == second.zone
        and np.array_equal(first.days, second.days)
        and np.array_equal(first.times, second.times)
    )


def the_file(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def hours(*times: float | None) -> NDArray[np.int64]:
    return np.array([[MISSING if time is None else int(time * HOUR) for time in times]])


# --- what is made of the library's table ---------------------------------------------------------


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ((4, 9, 12, 13, 16, 20), (4, 9, 12, 13, 16, 20)),
        ((None, 9, None, None, 16, None), (None, 9, None, None, 16, None)),
        ((None, 9, 12, 16, 16, None), (None, 9, None, None, 16, None)),
        ((None, 9, 16, 17, 16, None), (None, 9, None, None, 16, None)),
        ((None, 9, 12, 12, 16, None), (None, 9, None, None, 16, None)),
        ((None, 9, 8, 10, 16, None), (None, 9, None, None, 16, None)),
        ((None, 9, 9, 10, 16, None), (None, 9, None, None, 16, None)),
        ((None, 9, 12, None, 16, None), (None, 9, None, None, 16, None)),
        ((9, 9, None, None, 16, 16), (None, 9, None, None, 16, None)),
        ((10, 9, None, None, 16, 15), (None, 9, None, None, 16, None)),
    ],
)
def test_breaks_and_outer_hours_that_mean_nothing_are_dropped(
    times: tuple[float | None, ...], expected: tuple[float | None, ...]
) -> None:
    assert tidy(hours(*times)).tolist() == hours(*expected).tolist()


def test_missing_times_make_empty_segments() -> None:
    schedule = Schedule("UTC", np.array([0]), hours(None, 9, None, None, 16, None))
    assert (schedule.edges() // HOUR).tolist() == [[9, 9, 16, 16, 16, 16]]


def test_missing_times_of_the_library_are_read_as_missing() -> None:
    """A calendar whose break was abolished has NaT in its columns from then on."""
    import pandas as pd

    def column(*texts: str) -> pd.Series[pd.Timestamp]:
        return pd.Series(pd.to_datetime(list(texts), utc=True), index=days)

    days = pd.DatetimeIndex(["1970-01-01", "1970-01-02", "1970-01-03", "1970-01-04"])
    table = pd.DataFrame(
        {
            "market_close": column(
                "1970-01-01 16:00", "1970-01-02 16:00", "NaT", "1970-01-04 09:00"
            ),
            "market_open": column(*[f"1970-01-0{day} 09:00" for day in (1, 2, 3, 4)]),
            "break_start": column("1970-01-01 12:00", "NaT", "NaT", "NaT"),
            "break_end": column("1970-01-01 13:00", "NaT", "NaT", "NaT"),
        }
    )
    schedule = schedules._from_table("UTC", table)
    assert schedule.days.tolist() == [0, 1]  # the others have no close, or one at the open
    expected = [hours(None, 9, 12, 13, 16, None), hours(None, 33, None, None, 40, None)]
    assert schedule.times.tolist() == np.concatenate(expected).tolist()


def test_a_day_does_not_depend_on_the_span_it_is_computed_with() -> None:
    """What allows one schedule for all years."""
    import pandas_market_calendars

    whole = library_schedule("CME_Equity", VERSIONS, None)
    year = pandas_market_calendars.get_calendar("CME_Equity").schedule(
        "2012-01-01", "2012-12-31", market_times="all"
    )
    alone = schedules._from_table(whole.zone, year)
    rows = np.isin(whole.days, alone.days)
    assert np.array_equal(whole.times[rows], alone.times)
    assert (np.diff(np.flatnonzero(rows)) == 1).all()


# --- the copy on disk ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["NYSE", "HKEX", "CME_Equity", ALWAYS])
def test_a_copy_holds_exactly_what_was_computed(name: str, tmp_path: Path) -> None:
    computed = library_schedule(name, VERSIONS, None)
    first, second = (library_schedule(name, VERSIONS, tmp_path) for _ in range(2))
    assert same(first, computed)
    assert same(second, computed)


def test_a_warm_start_imports_no_pandas_and_builders_do_not_disturb_each_other(
    tmp_path: Path,
) -> None:
    """Three processes build at once, warnings being errors; a fourth one only reads."""
    code = """
import sys; from datetime import date; from pathlib import Path
from stream_coord.calendars import open_calendar
overrides = {"fri": {"close": "15:00"}}
calendar = open_calendar("NYSE", "extended", overrides, Path(sys.argv[1]))
print(calendar.identity, calendar.session(date(2024, 3, 8)))
heavy = {"pandas", "pandas_market_calendars", "exchange_calendars", "polars", "sqlalchemy"}
print(sorted(heavy & sys.modules.keys()))
"""
    call = [sys.executable, "-W", "error", "-c", code, str(tmp_path)]
    builders = [subprocess.Popen(call, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    built = [process.communicate()[0].splitlines() for process in builders]
    assert [process.returncode for process in builders] == [0, 0, 0]
    assert "pandas" in built[0][1]
    assert the_file(tmp_path).name.endswith(".bin")
    warm = subprocess.run(call, capture_output=True, text=True, check=True).stdout.splitlines()
    assert warm[1] == "[]"
    assert {lines[0] for lines in built} == {warm[0]}


def test_a_damaged_copy_is_ignored_and_rebuilt(tmp_path: Path) -> None:
    """One flipped bit anywhere, any truncation, junk: never an error, never other sessions."""
    expected = library_schedule(ALWAYS, VERSIONS, tmp_path)
    path = the_file(tmp_path)
    good = path.read_bytes()
    draw = random.Random(20240308)  # noqa: S311 - not a secret
    flips = [*range(0, 48, 3), *(draw.randrange(len(good)) for _ in range(24)), len(good) - 1]
    damaged = [
        good[:at] + bytes([good[at] ^ (1 << draw.randrange(8))]) + good[at + 1 :] for at in flips
    ]
    damaged += [good[:size] for size in (0, 1, 15, 16, 17, len(good) // 2, len(good) - 1)]
    damaged += [good + b"\0", b"not a schedule at all", bytes(100)]
    for content in damaged:
        path.write_bytes(content)
        assert same(library_schedule(ALWAYS, VERSIONS, tmp_path), expected)
        assert path.read_bytes() == good


def test_a_file_of_another_making_is_ignored_though_its_checksum_holds(tmp_path: Path) -> None:
    expected = library_schedule(ALWAYS, VERSIONS, tmp_path)
    path = the_file(tmp_path)
    good = path.read_bytes()
    key, zone, days, times = msgspec.msgpack.decode(good[16:])
    others = [
        b"",
        b"\xc1",
        b"not a schedule at all",
        msgspec.msgpack.encode([key, zone]),
        msgspec.msgpack.encode([key, zone, days, 5]),
        msgspec.msgpack.encode([key, zone, days, times[:-1]]),
        msgspec.msgpack.encode([key, zone, days, times[:-48]]),
    ]
    for record in others:
        path.write_bytes(xxh3_128_digest(record) + record)
        assert same(library_schedule(ALWAYS, VERSIONS, tmp_path), expected)
        assert path.read_bytes() == good


def test_the_copy_of_another_calendar_is_not_taken(tmp_path: Path) -> None:
    library_schedule("24/5", VERSIONS, tmp_path / "other")
    expected = library_schedule(ALWAYS, VERSIONS, tmp_path / "own")
    shutil.copy(the_file(tmp_path / "other"), the_file(tmp_path / "own"))
    assert same(library_schedule(ALWAYS, VERSIONS, tmp_path / "own"), expected)


@pytest.mark.parametrize("field", ["library", "mirrored", "time_zones"])
def test_a_copy_of_other_versions_is_not_taken(field: str, tmp_path: Path) -> None:
    library_schedule(ALWAYS, VERSIONS._replace(**{field: "another 0.1"}), tmp_path)
    other = the_file(tmp_path).read_bytes()
    library_schedule(ALWAYS, VERSIONS, tmp_path)
    assert the_file(tmp_path).read_bytes() != other


def test_a_good_copy_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> Schedule:
        raise AssertionError(f"computed {name} again")

    expected = library_schedule(ALWAYS, VERSIONS, tmp_path)
    monkeypatch.setattr(schedules, "_compute", fail)
    assert same(library_schedule(ALWAYS, VERSIONS, tmp_path), expected)


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    expected = library_schedule(ALWAYS, VERSIONS, None)
    (tmp_path / "file").write_text("in the way")
    assert same(library_schedule(ALWAYS, VERSIONS, tmp_path / "file" / "cache"), expected)
    library_schedule(ALWAYS, VERSIONS, tmp_path / "cache")
    path = the_file(tmp_path / "cache")
    path.unlink()
    path.mkdir()
    assert same(library_schedule(ALWAYS, VERSIONS, tmp_path / "cache"), expected)
    assert the_file(tmp_path / "cache") == path


def test_a_failed_write_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    assert same(
        library_schedule(ALWAYS, VERSIONS, tmp_path), library_schedule(ALWAYS, VERSIONS, None)
    )
    assert not list(tmp_path.iterdir())


def test_versions_come_from_the_time_zones_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import zoneinfo
    from importlib.metadata import version

    monkeypatch.setattr(zoneinfo, "TZPATH", (str(tmp_path),))
    assert installed_versions().time_zones == f"tzdata {version('tzdata')}"
    (tmp_path / "tzdata.zi").write_text("# version 2031z\nR A 1 2\n")
    assert installed_versions().time_zones == "# version 2031z"


def test_no_cache_folder_means_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_calendar(ALWAYS).session(date(2024, 3, 8)).date == date(2024, 3, 8)
    with pytest.raises(CalendarError):
        open_calendar("nothing")
    assert not list(tmp_path.iterdir())
