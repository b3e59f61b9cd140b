"""A bar file's manifest, and the errors of the libraries below."""

from __future__ import annotations

from datetime import date

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_coord.errors import StoreConflictError, StoreCorruptError, StoreError
from stream_coord.stores.delta.manifest import group_tables, manifest_text, parse_manifest
from stream_coord.stores.library_errors import library_errors_as

DAY = date(2018, 11, 23)

tables = st.lists(
    st.tuples(
        st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=8),
        st.integers(1, 10**6),
        st.integers(-(2**62), 2**62),
        st.integers(-(2**62), 2**62),
        st.sampled_from(["0" * 32, "0123456789abcdef0123456789abcdef"]),
    ),
    max_size=5,
)


def group_table(rows: list[tuple[str, int, int, int, str]]) -> pl.DataFrame:
    schema = {"symbol": pl.String, "rows": pl.Int64, "first": pl.Int64, "last": pl.Int64}
    return pl.DataFrame(rows, schema=schema | {"checksum": pl.String}, orient="row")


@given(tables)
def test_a_manifest_gives_back_its_group_table(rows: list[tuple[str, int, int, int, str]]) -> None:
    manifest = parse_manifest(manifest_text("1m", DAY, group_table(rows)), "1m", DAY)
    offsets = [sum(row[1] for row in rows[:number]) for number in range(len(rows))]
    both = group_tables({"a": manifest, "b": manifest})  # offsets begin anew in each file
    for path in ("a", "b"):
        parsed = both.filter(path=path)
        assert parsed["offset"].to_list() == offsets
        assert parsed["date"].to_list() == [DAY] * len(rows)
        assert parsed.drop("offset", "date", "path").equals(group_table(rows))


def test_every_flipped_bit_of_a_manifest_is_noticed() -> None:
    text = manifest_text("1m", DAY, group_table([("A", 390, 10, 20, "0" * 32)])).encode()
    for bit in range(len(text) * 8):
        flipped = bytearray(text)
        flipped[bit // 8] ^= 1 << bit % 8
        damaged = flipped.decode(errors="replace")
        with pytest.raises(ValueError, match="damaged"):
            parse_manifest(damaged, "1m", DAY)


@pytest.mark.parametrize(("interval", "day"), [("5m", DAY), ("1m", date(2018, 11, 24))])
def test_a_manifest_of_something_else_is_noticed(interval: str, day: date) -> None:
    text = manifest_text(interval, day, group_table([("A", 390, 10, 20, "0" * 32)]))
    with pytest.raises(ValueError, match=f"of {interval} bars of {day}, not of 1m bars"):
        parse_manifest(text, "1m", DAY)


def panic() -> BaseException:
    return pl.exceptions.PanicException("index out of bounds")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            OSError("\x1b[31mGeneric error\x1b[0m\n  \x1b[31m↳\x1b[0m disk full"),
            "Generic error: disk full",
        ),
        (ValueError(), "ValueError"),
        (panic(), "index out of bounds"),
    ],
)
def test_library_errors_and_panics_become_ours(error: BaseException, told: str) -> None:
    with (
        pytest.raises(StoreCorruptError, match=f"^cannot read x: {told}\nrestore it$"),
        library_errors_as(StoreCorruptError, "cannot read x", "restore it"),
    ):
        raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), StoreConflictError("lost")])
def test_an_interrupt_and_our_own_errors_pass(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, library_errors_as(StoreError, "what", "hint"):
        raise error
    assert caught.value is error
