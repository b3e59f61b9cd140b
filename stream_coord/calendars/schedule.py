"""When an exchange trades: the library's schedule, and its copy on disk.

A `Schedule` holds the sessions of one calendar from `FIRST_DAY` to `LAST_DAY`, all that
pandas-market-calendars' ``schedule(market_times="all")`` says. The whole span takes the library
about 0.2 seconds (its own result for a day does not depend on the span), so it is computed in one
call, once for a version of the library and of the time-zone rules, and never has to be extended.

The copy in ``cache_dir`` is what keeps pandas out of a warm start: 16 bytes of XXH3-128 over a
msgpack record that begins with a key (format, calendar name, library and time-zone versions). A
file that is truncated, altered, or has another key is ignored and replaced. Files are written
beside and renamed, so that processes that build at once each leave a whole one.
"""

from __future__ import annotations

import os
import secrets
import warnings
import zoneinfo
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np

from stream_coord.errors import CalendarError, near_miss

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

FIRST_DAY = date(1970, 1, 1)
LAST_DAY = date(2100, 12, 31)

FIELDS = ("pre", "open", "break_start", "break_end", "close", "post")
"""The columns of `Schedule.times`, in the order in which they pass."""
PRE, OPEN, BREAK_START, BREAK_END, CLOSE, POST = range(len(FIELDS))
BREAK = slice(BREAK_START, CLOSE)

MISSING = int(np.iinfo(np.int64).min)
"""A time that a session does not have; numpy's NaT, seen as an integer."""

_LIBRARY_COLUMNS = ("pre", "market_open", "break_start", "break_end", "market_close", "post")
_FORMAT = "stream-coord schedule 1"
_DIGEST_BYTES = 16


@dataclass(frozen=True, slots=True)
class Schedule:
    """The sessions of one calendar.

    Attributes:
        zone: Name of the exchange's time zone.
        days: Session dates, days since 1970-01-01, int64, ascending.
        times: Shape (sessions, 6), int64 UTC microseconds in the order of `FIELDS`, or `MISSING`;
            only `OPEN` and `CLOSE` never are.
    """

    zone: str
    days: NDArray[np.int64]
    times: NDArray[np.int64]

    def edges(self) -> NDArray[np.int64]:
        """Return `times` with no gaps, each row ascending and no row before the one above.

        A missing pre-market begins and ends at the open, a missing post-market at the close, a
        missing break at the close. So [0, 1) is pre-market, [1, 2) and [3, 4) are regular and
        [4, 5) is post-market, and what does not exist is empty.
        """
        opens, closes = self.times[:, OPEN], self.times[:, CLOSE]
        default = np.column_stack((opens, opens, closes, closes, closes, closes))
        return np.where(self.times == MISSING, default, self.times)


def day_number(day: date) -> int:
    """Return the days from 1970-01-01 to `day`."""
    return (day - FIRST_DAY).days


def number_day(number: int) -> date:
    """Return the day that is `number` days after 1970-01-01."""
    return FIRST_DAY + timedelta(days=number)


class Versions(NamedTuple):
    """What a schedule depends on besides the calendar's name."""

    library: str
    mirrored: str
    time_zones: str


def installed_versions() -> Versions:
    """Return the installed versions; imports neither library.

    pandas-market-calendars takes some calendars from exchange-calendars. Time zones come from the
    system's files where it has them, else from the tzdata package, as in `zoneinfo`.
    """
    from importlib.metadata import version

    library, mirrored = "pandas-market-calendars", "exchange-calendars"
    system = filter(None, map(_system_time_zones, zoneinfo.TZPATH))
    return Versions(
        f"{library} {version(library)}",
        f"{mirrored} {version(mirrored)}",
        next(system, f"tzdata {version('tzdata')}"),
    )


def _system_time_zones(folder: str) -> str:
    """Return the version line of a folder of time zones, or an empty text."""
    with suppress(OSError), (Path(folder) / "tzdata.zi").open(encoding="utf-8") as rules:
        return rules.readline().strip()
    return ""


def library_schedule(name: str, versions: Versions, cache_dir: Path | None) -> Schedule:
    """Return a calendar's schedule from its copy on disk, else from the library.

    Args:
        name: The library's name for the calendar.
        versions: The installed versions; a copy that others made is not used.
        cache_dir: Where copies are kept; None for nowhere. A folder that is missing is made, one
            that cannot be read or written only costs the time to compute.

    Raises:
        CalendarError: the library does not know the calendar, or cannot compute it.
    """
    if cache_dir is None:
        return _compute(name)
    key = "\n".join((_FORMAT, name, *versions))
    path = cache_dir / _file_name(name)
    schedule = _read_copy(path, key)
    if schedule is None:
        schedule = _compute(name)
        _write_copy(path, key, schedule)
    return schedule


# --- the library ---------------------------------------------------------------------------------


def _compute(name: str) -> Schedule:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pandas deprecations inside the library are not our user's
        import pandas_market_calendars as library

        known = library.get_calendar_names()
        if name not in known:
            guess = near_miss(name, known) or near_miss(name.upper(), known)
            raise CalendarError(
                f"unknown calendar {name!r}{guess}",
                "Calendars are named as in pandas-market-calendars: NYSE, LSE, HKEX, JPX, "
                "CME_Equity, 24/7, ...",
            )
        try:
            calendar = library.get_calendar(name)
            table = calendar.schedule(str(FIRST_DAY), str(LAST_DAY), market_times="all")
            return _from_table(str(calendar.tz), table)
        except (LookupError, RuntimeError, TypeError, ValueError) as error:
            raise CalendarError(
                f"pandas-market-calendars lists {name!r} but cannot compute its sessions: {error}",
                "Choose another calendar of the same exchange.",
            ) from error


def _from_table(zone: str, table: pd.DataFrame) -> Schedule:
    days = table.index.to_numpy("datetime64[D]").view(np.int64)
    times = np.full((len(days), len(FIELDS)), MISSING)
    for column, field in enumerate(_LIBRARY_COLUMNS):
        if field in table.columns or column in {OPEN, CLOSE}:
            times[:, column] = table[field].to_numpy("datetime64[us]").view(np.int64)
    real = (times[:, OPEN] != MISSING) & (times[:, OPEN] < times[:, CLOSE])
    schedule = Schedule(zone, days[real], tidy(times[real]))
    if (row := first_overlap(schedule)) is not None:
        raise ValueError(f"sessions overlap at {number_day(int(schedule.days[row]))}")
    return schedule


def tidy(times: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return a copy without the times that mean nothing, which are set to `MISSING`.

    A break that does not lie inside the session is no break: exchanges' half-days and mirrored
    calendars list breaks that end, or even begin, at the close. Likewise a pre-market that does not
    begin before the open, and a post-market that does not end after the close.
    """
    times = times.copy()
    pre, opens, break_starts, break_ends, closes, post = times.T
    inside = (opens < break_starts) & (break_starts < break_ends) & (break_ends < closes)
    times[pre >= opens, PRE] = MISSING
    times[~inside, BREAK] = MISSING
    times[post <= closes, POST] = MISSING
    return times


def first_overlap(schedule: Schedule) -> int | None:
    """Return the first row whose session reaches into the next one, or None."""
    edges = schedule.edges()
    rows = np.flatnonzero(edges[:-1, POST] > edges[1:, PRE])
    return int(rows[0]) if rows.size else None


# --- the copy on disk ----------------------------------------------------------------------------


class _Copy(msgspec.Struct, array_like=True):
    key: str
    zone: str
    days: bytes  # little-endian int64, like `times`
    times: bytes


def _file_name(name: str) -> str:
    """Return the file name of a calendar's copy; a name is user text and may hold a slash."""
    from xxhash import xxh3_64_hexdigest

    return f"schedule-{xxh3_64_hexdigest(name.encode(errors='surrogatepass'))}.bin"


def _read_copy(path: Path, key: str) -> Schedule | None:
    from xxhash import xxh3_128_digest

    try:
        content = path.read_bytes()
        record = memoryview(content)[_DIGEST_BYTES:]
        if xxh3_128_digest(record) != content[:_DIGEST_BYTES]:
            return None
        copy = msgspec.msgpack.decode(record, type=_Copy)
        if copy.key != key:
            return None
        days = np.frombuffer(copy.days, "<i8")
        times = np.frombuffer(copy.times, "<i8").reshape(len(days), len(FIELDS))
        return Schedule(copy.zone, days, times)
    except (OSError, ValueError, msgspec.MsgspecError):
        return None


def _write_copy(path: Path, key: str, schedule: Schedule) -> None:
    from xxhash import xxh3_128_digest

    days, times = (array.astype("<i8").tobytes() for array in (schedule.days, schedule.times))
    record = msgspec.msgpack.encode(_Copy(key, schedule.zone, days, times))
    beside = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with beside.open("xb") as file:
                file.write(xxh3_128_digest(record) + record)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
