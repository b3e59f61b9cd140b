"""Derived bars beside a walk bar by bar, and beside polars."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from stream_coord.bars import FILLED, SYNTHETIC, TRUNCATED
from stream_coord.clock import parse_moment
from stream_coord.compute.derive import Buckets, Derived, Segments, buckets_of, derive
from stream_coord.interval import DAY, MINUTE

MIDNIGHT = parse_moment("2018-11-23T00:00:00Z")
PRICES = np.array([0.1, 0.2, 0.3, 1.0, 2.5, -0.0, 0.0, 1e16, 7.0])


@dataclass
class Base:
    """Sessions and their base bars.

    Attributes:
        parts: Per segment: open and close in minutes since midnight, regular, day number.
    """

    parts: list[tuple[int, int, bool, int]]
    values: NDArray[np.float64]
    present: NDArray[np.bool_]
    flags: NDArray[np.uint8]

    @property
    def segments(self) -> Segments:
        opens, closes, regular, days = (
            np.array([part[n] for part in self.parts], np.int64) for n in range(4)
        )
        return Segments(
            MIDNIGHT + opens * MINUTE,
            MIDNIGHT + closes * MINUTE,
            regular.astype(np.bool_),
            MIDNIGHT + days * DAY,
        )

    def derived(self, buckets: Buckets, first: int = 0, stop: int | None = None) -> Derived:
        return derive(self.values, self.present, self.flags, buckets, first, stop)


@st.composite
def bases(draw: st.DrawFn, *, plain: bool = False) -> Base:
    """Sessions with breaks, early closes, pre- and post-market, holes and flags."""
    parts = []
    for day in range(draw(st.integers(1, 3))):
        time = day * 1440 + draw(st.integers(-120, 120))
        kinds = [False] * draw(st.integers(0, 1)) + [True] * draw(st.integers(1, 2))
        for regular in [*kinds, *[False] * draw(st.integers(0, 1))]:
            length = draw(st.integers(1, 9) | st.integers(1, 120))
            parts.append((time, time + length, regular, day))
            time += length + draw(st.integers(0, 3))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = draw(st.sampled_from([1, 2, 3, 90])), sum(close - start for start, close, _, _ in parts)
    values = random.integers(1, 1000, (5, *shape)).astype(np.float64)
    if not plain:
        values = random.choice(PRICES, values.shape)
    present = random.random(shape) >= draw(st.sampled_from([0.0, 0.02, 0.5, 0.95]))
    values[:, ~present] = np.nan
    flags = np.zeros(shape, np.uint8)
    if not plain:
        rate = draw(st.sampled_from([0.0, 0.05, 0.7]))
        chosen = random.random(shape) < rate
        flags[chosen & present] = random.choice([SYNTHETIC, FILLED], shape)[chosen & present]
    return Base(parts, values, present, flags)


WIDTHS = st.sampled_from([2, 3, 5, 15, 45, 60])
Cell = tuple[list[float], int, int]


def walked(base: Base, width: int) -> list[tuple[int, int, bool, list[Cell | None]]]:
    """Return start, end, truncated and each symbol's (values, flags, n) of every bucket."""
    buckets, slot = [], 0
    for opened, closed, _, _ in base.parts:
        for minute in range(opened, closed, width):
            end = min(minute + width, closed)
            slots = range(slot + minute - opened, slot + end - opened)
            cut = end - minute < width
            cells = [cell(base, row, slots, cut=cut) for row in range(len(base.present))]
            buckets.append((minute, end, cut, cells))
        slot += closed - opened
    return buckets


def cell(base: Base, row: int, slots: range, *, cut: bool) -> Cell | None:
    """Build one derived bar, one base bar after the other."""
    here = [slot for slot in slots if base.present[row, slot]]
    real = [slot for slot in here if not base.flags[row, slot] & SYNTHETIC]
    bars = [base.values[:, row, slot].tolist() for slot in real or here]
    if not bars:
        return None
    opened, high, low, close, volume = bars[0]
    for bar in bars[1:]:
        high, low, close = max(high, bar[1]), min(low, bar[2]), bar[3]
        volume += bar[4]
    filled = any(base.flags[row, slot] & FILLED for slot in real or here)
    flags = FILLED * filled | SYNTHETIC * (not real) | TRUNCATED * cut
    return [opened, high, low, close, volume], flags, len(real)


def cells_of(derived: Derived, bucket: int) -> list[Cell | None]:
    return [
        (
            derived.values[:, row, bucket].tolist(),
            int(derived.flags[row, bucket]),
            int(derived.n[row, bucket]),
        )
        if derived.present[row, bucket]
        else None
        for row in range(len(derived.present))
    ]


@given(bases(), WIDTHS)
def test_derived_bars_are_what_a_walk_finds(base: Base, width: int) -> None:
    buckets = buckets_of(base.segments, MINUTE, width * MINUTE)
    derived, expected = base.derived(buckets), walked(base, width)
    assert len(buckets) == len(expected)
    for number, (start, end, cut, cells) in enumerate(expected):
        assert buckets.starts[number] == MIDNIGHT + start * MINUTE
        assert buckets.ends[number] == MIDNIGHT + end * MINUTE
        assert buckets.truncated[number] == cut
        assert buckets.n_expected[number] == end - start
        assert cells_of(derived, number) == cells
    holes = ~derived.present
    assert np.isnan(derived.values[:, holes]).all()
    assert not derived.flags[holes].any()
    assert not derived.n[holes].any()


@given(bases())
def test_a_day_is_all_regular_minutes_of_its_date(base: Base) -> None:
    derived = base.derived(buckets := buckets_of(base.segments, MINUTE, DAY))
    kept: dict[int, list[int]] = {}
    ends: dict[int, int] = {}
    slot = 0
    for opened, closed, regular, day in base.parts:
        if regular:
            kept.setdefault(day, []).extend(range(slot, slot + closed - opened))
            ends[day] = closed
        slot += closed - opened
    assert buckets.starts.tolist() == [MIDNIGHT + day * DAY for day in kept]
    assert buckets.ends.tolist() == [MIDNIGHT + ends[day] * MINUTE for day in kept]
    for number, slots in enumerate(kept.values()):
        block = range(slots[0], slots[-1] + 1)
        assert list(block) == slots
        assert np.flatnonzero(buckets.of_slot == number).tolist() == slots
        assert cells_of(derived, number) == [
            cell(base, row, block, cut=False) for row in range(len(base.present))
        ]


@given(bases(), WIDTHS | st.just(DAY // MINUTE), st.data())
def test_a_bucket_built_alone_is_the_same_to_the_last_bit(
    base: Base, width: int, data: st.DataObject
) -> None:
    buckets = buckets_of(base.segments, MINUTE, width * MINUTE)
    whole = base.derived(buckets)
    row = data.draw(st.integers(0, len(base.present) - 1))
    for number in range(len(buckets)):
        one = base.derived(buckets, number, number + 1)
        alone = derive(
            base.values[:, [row]],
            base.present[[row]],
            base.flags[[row]],
            buckets,
            number,
            number + 1,
        )
        for name in ("values", "present", "flags", "n"):
            column = getattr(whole, name)[..., number : number + 1]
            assert getattr(one, name).tobytes() == column.tobytes()
            assert getattr(alone, name).tobytes() == column[..., [row], :].tobytes()


@given(bases(plain=True), WIDTHS)
def test_derived_bars_are_those_of_polars(base: Base, width: int) -> None:
    """Volumes are whole numbers here: polars adds in an order of its own."""
    parts = [number for number, part in enumerate(base.parts) for _ in range(part[1] - part[0])]
    minutes = [minute for opened, closed, _, _ in base.parts for minute in range(closed - opened)]
    rows, slots = np.nonzero(base.present)
    frame = pl.DataFrame(
        {
            "row": rows,
            "part": np.array(parts)[slots],
            "minute": np.array(minutes)[slots],
            **dict(zip("ohlcv", base.values[:, rows, slots], strict=True)),
        }
    )
    expected = frame.group_by_dynamic("minute", every=f"{width}i", group_by=["row", "part"]).agg(
        pl.col("o").first(),
        pl.col("h").max(),
        pl.col("l").min(),
        pl.col("c").last(),
        pl.col("v").sum(),
        pl.len().alias("n"),
    )

    buckets = buckets_of(base.segments, MINUTE, width * MINUTE)
    derived = base.derived(buckets)
    rows, columns = np.nonzero(derived.present)
    firsts = buckets.first[columns]
    found = pl.DataFrame(
        {
            "row": rows,
            "part": np.array(parts)[firsts],
            "minute": np.array(minutes)[firsts],
            **dict(zip("ohlcv", derived.values[:, rows, columns], strict=True)),
            "n": derived.n[rows, columns],
        }
    )
    assert found.rows() == expected.sort("row", "part", "minute").rows()
