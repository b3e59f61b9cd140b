"""Times of bars: texts, numbers and datetimes to UTC microseconds, exactly or not at all.

The public functions that convert return a frame of two columns: ``start`` (Int64, UTC
microseconds, null where there is none) and ``reason`` (String, null where there is a start).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from stream_coord.clock import to_micros
from stream_coord.errors import UsageError, near_miss

if TYPE_CHECKING:
    import polars as pl

UNPARSABLE_TIME = "unparsable: time"
NOT_WHOLE = "misaligned: the time is no whole microsecond"
NO_OFFSET = "no-offset: the time has no offset, and no time zone is stated"

EPOCHS = {"epoch-s": 6, "epoch-ms": 3, "epoch-us": 0, "epoch-ns": -3}
"""Formats of numeric times: how many decimal places the unit is above the microsecond."""

_MOST = 1 << 62
# Spelt-out [0-9], because \d is a digit of any script. Seconds end at 59, because the parser
# would take a leap second for the next minute.
_CLOCK = r"[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}(:[0-5][0-9](\.[0-9]{1,6}0*)?)?"
_OFFSET = r" ?(Z|[+-][0-9]{2}(:?[0-9]{2})?)"
# Whole seconds come first: the parser is much faster at them.
_ISO = [f"%Y-%m-%d{mark}%H:%M{seconds}" for seconds in (":%S", ":%S%.f", "") for mark in " T"]
_ANY_OFFSET = "%#z"  # the parser's own word for: Z, +01, +0100 or +01:00
_DIRECTIVE = re.compile(r"%(\.f|.?)", re.DOTALL)
_DIRECTIVES = {*"YymdbBjHIMSpTRFaA%z", ".f"}


def check_zone(name: str) -> None:
    """Check that `name` is a time zone of the IANA database.

    Raises:
        UsageError: it is none.
    """
    from zoneinfo import available_timezones

    known = available_timezones() - {"localtime", "Factory"}  # they differ by machine
    if name not in known:
        raise UsageError(
            f"{name!r} is not a time zone{near_miss(name, known)}",
            "Write an IANA name, for example America/New_York or UTC.",
        )


def check_time_format(text: str) -> None:
    """Check a time format: ``iso``, one of `EPOCHS`, or a strptime text.

    Raises:
        UsageError: it is none of them, or it does not tell one minute from another.
    """
    known = ("iso", *EPOCHS)
    if text in known:
        return
    if "%" not in text:
        raise UsageError(
            f"{text!r} is no time format{near_miss(text, known)}",
            f"Write {', '.join(known)}, or a strptime text such as '%d.%m.%Y %H:%M'.",
        )
    for directive in _DIRECTIVE.findall(_dialect(text)):
        if directive not in _DIRECTIVES:
            raise UsageError(
                f"the time format {text!r} holds '%{directive}', which is not supported",
                "Zone names and bare fractions are ambiguous: use %z, --tz, .%f or epoch-s.",
            )
    if not _round_trips(_dialect(text)):
        raise UsageError(
            f"the time format {text!r} does not state year, month, day, hour and minute",
            "Write all of them, for example '%d.%m.%Y %H:%M'.",
        )


def _round_trips(pattern: str) -> bool:
    import polars as pl

    moment = datetime(2018, 11, 23, 13, 47, tzinfo=UTC)
    times = pl.Series([moment], dtype=pl.Datetime("us", "UTC"))
    try:
        back = _parse(times.dt.strftime(pattern), [pattern.replace("%z", _ANY_OFFSET)])
    except pl.exceptions.ComputeError:
        return False
    return back.to_list() == [to_micros(moment)]


def _dialect(text: str) -> str:
    """Return Python's way to write a fraction in the parser's."""
    return text.replace(".%f", "%.f")


def text_times(
    text: pl.Series, time_format: str, tz: str | None, *, must_place: bool = True
) -> pl.DataFrame:
    """Read texts as times.

    Args:
        text: String.
        time_format: As `check_time_format` allows.
        tz: The zone of the times that carry no offset; None if all carry one.
        must_place: Whether it is a mistake if none of these carries one; not so where others of
            the same file do.

    Raises:
        UsageError: no time carries an offset, and no zone is stated.
    """
    if time_format in EPOCHS:
        return epoch_text_times(text, EPOCHS[time_format])
    if time_format == "iso":
        local = _parse(_where(text, f"^{_CLOCK}$"), _ISO)
        rest = _where(text, f"^{_CLOCK}{_OFFSET}$") if local.null_count() else text.clear(len(text))
        return _placed(
            local, _parse(rest, [iso + _ANY_OFFSET for iso in _ISO]), text, tz, must_place
        )
    pattern = _dialect(time_format).replace("%z", _ANY_OFFSET)
    times, none = _parse_seconds(text, pattern), _parse(text.clear(len(text)), [])
    local, utc = (none, times) if "%z" in time_format else (times, none)
    return _placed(local, utc, text, tz, must_place)


def _where(text: pl.Series, pattern: str) -> pl.Series:
    """Return `text` with null for everything that does not match."""
    import polars as pl

    matches = text.str.contains(pattern)
    return text if matches.all() else pl.select(pl.when(matches).then(text)).to_series()


def _parse(text: pl.Series, patterns: Sequence[str]) -> pl.Series:
    """Return microseconds (Int64) by the first of `patterns` that fits each text, else null."""
    import polars as pl

    found = pl.Series(dtype=pl.Int64).clear(len(text))
    for pattern in patterns:
        if found.null_count() == text.null_count():
            break
        untold = found.null_count() == len(found)
        rest = text if untold else pl.select(pl.when(found.is_null()).then(text)).to_series()
        # The parser's cache of texts pays for slow patterns only.
        slow = "%.f" in pattern or "%#z" in pattern
        times = rest.str.to_datetime(pattern, time_unit="us", strict=False, cache=slow).cast(
            pl.Int64
        )
        found = times if untold else pl.select(pl.coalesce(found, times)).to_series()
    return found


def _parse_seconds(text: pl.Series, pattern: str) -> pl.Series:
    """Return what `_parse` does, and null for a second 60: the parser takes the next minute."""
    import polars as pl

    times = _parse(text, [pattern])
    leap = pattern.replace("%T", "%H:%M:%S").replace("%S", "60")
    if leap == pattern:
        return times
    is_leap = _parse(_where(text, "60"), [leap]).is_not_null()
    return pl.select(pl.when(~is_leap).then(times)).to_series()


def _placed(
    local: pl.Series, utc: pl.Series, text: pl.Series, tz: str | None, must_place: bool
) -> pl.DataFrame:
    """Return the times of two sorts of text together; what is null in both is unparsable."""
    import polars as pl

    if must_place and tz is None and local.count() and not utc.count():
        raise _no_zone(text.filter(local.is_not_null())[0])
    start = pl.coalesce(utc, pl.col("start"))
    reason = pl.coalesce("reason", pl.lit(UNPARSABLE_TIME))
    return local_times(local, tz).select(start=start, reason=pl.when(start.is_null()).then(reason))


def _no_zone(example: object) -> UsageError:
    return UsageError(
        f"the time '{example}' has no offset, and no time zone is stated",
        "State the zone with --tz, for example --tz America/New_York.",
    )


def local_times(local: pl.Series, tz: str | None) -> pl.DataFrame:
    """Return the UTC times of wall-clock times; one that does not exist or is ambiguous has none.

    Args:
        local: Int64, microseconds from 1970-01-01 00:00 to the time as a clock on the wall shows
            it; null stays null, without a reason.
        tz: IANA name; None makes `NO_OFFSET` the reason of all.
    """
    import polars as pl

    if tz is None:
        no_offset = pl.when(local.is_not_null()).then(pl.lit(NO_OFFSET))
        return pl.select(start=local.clear(len(local)), reason=no_offset)
    wall = local.cast(pl.Datetime("us"))
    start = wall.dt.replace_time_zone(tz, ambiguous="null", non_existent="null").cast(pl.Int64)
    if start.null_count() == local.null_count():
        return pl.select(start=start, reason=pl.lit(None, pl.String))
    earliest = wall.dt.replace_time_zone(tz, ambiguous="earliest", non_existent="null")
    reason = (
        pl.when(start.is_not_null() | local.is_null())
        .then(None)
        .when(earliest.is_null())
        .then(pl.lit(f"nonexistent-time: clocks in {tz} skip it"))
        .otherwise(pl.lit(f"ambiguous-time: clocks in {tz} show it twice"))
    )
    return pl.select(start=start, reason=reason)


def datetime_times(values: pl.Series, tz: str | None) -> pl.DataFrame:
    """Return the times of a Datetime column; null stays null, without a reason.

    Args:
        values: Datetime of any unit, with or without a zone.
        tz: The zone of values that have none.

    Raises:
        UsageError: they have none, and none is stated.
    """
    import polars as pl

    unit = values.dtype
    if not isinstance(unit, pl.Datetime):
        raise TypeError(unit)
    times = epoch_times(values.to_physical(), EPOCHS[f"epoch-{unit.time_unit}"])
    if unit.time_zone is not None:
        return times
    if tz is None and values.count():
        raise _no_zone(values.drop_nulls()[0])
    placed = local_times(times["start"], tz)
    return placed.with_columns(reason=pl.coalesce(times["reason"], "reason"))


def epoch_times(values: pl.Series, places: int) -> pl.DataFrame:
    """Return the times of whole numbers since the epoch; null stays null, without a reason.

    Args:
        values: Int64, in a unit of 10 ** `places` microseconds.
        places: As in `EPOCHS`.
    """
    import polars as pl

    factor, divisor = 10 ** max(places, 0), 10 ** max(-places, 0)
    sane = values.is_between(-_MOST // factor, _MOST // factor)  # lest the product wrap
    whole = values % divisor == 0
    start = pl.when(sane & whole).then(values) * factor // divisor
    reason = pl.when(~sane).then(pl.lit(UNPARSABLE_TIME)).when(~whole).then(pl.lit(NOT_WHOLE))
    return pl.select(start=start, reason=reason)


def epoch_text_times(text: pl.Series, places: int) -> pl.DataFrame:
    """Read decimal numbers since the epoch, exactly; one with an exponent is unparsable.

    Args:
        text: String.
        places: As in `EPOCHS`.
    """
    import polars as pl

    times = epoch_times(text.cast(pl.Int64, strict=False), places)
    if times["start"].null_count():
        rest = _decimal_times(text, places)
        times = pl.select(
            start=pl.coalesce(times["start"], rest["start"]),
            reason=pl.coalesce(times["reason"], rest["reason"]),
        )
    missing = pl.col("start").is_null() & pl.col("reason").is_null()
    reason = pl.when(missing).then(pl.lit(UNPARSABLE_TIME)).otherwise("reason")
    return times.with_columns(reason=reason)


def _decimal_times(text: pl.Series, places: int) -> pl.DataFrame:
    """Read the texts that have a decimal point, by moving it to the microsecond's place."""
    import polars as pl

    parts = text.str.extract_groups(r"^([0-9]+)\.([0-9]*?)0*$").struct
    room = max(places, 0)
    fits = parts.field("2").str.len_bytes() <= room
    digits = parts.field("1") + parts.field("2").str.pad_end(room, "0")
    times = epoch_times(digits.cast(pl.Int64, strict=False), min(places, 0))
    return times.select(
        start=pl.when(fits).then("start"),
        reason=pl.when(~fits).then(pl.lit(NOT_WHOLE)).otherwise("reason"),
    )
