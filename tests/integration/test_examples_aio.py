"""The complete-system example as a user runs it, its numbers recomputed by polars."""

from __future__ import annotations

import asyncio
import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import polars as pl
import pytest

from stream_coord.clock import parse_moment
from stream_coord.config import load_config
from stream_coord.interval import MINUTE
from stream_coord.opening import store_of
from tests.conftest import COMMAND, REPOSITORY

EXAMPLE = REPOSITORY / "examples" / "complete_system.py"
WATCHED = ["AQRV", "ELQN", "SQND"]
HOURS = {
    "2018-11-19": ("2018-11-19T14:30:00Z", "2018-11-19T21:00:00Z"),
    "2018-11-20": ("2018-11-20T14:30:00Z", "2018-11-20T21:00:00Z"),
    "2018-11-21": ("2018-11-21T14:30:00Z", "2018-11-21T21:00:00Z"),
    "2018-11-23": ("2018-11-23T14:30:00Z", "2018-11-23T18:00:00Z"),
}
GUARD_SECONDS = 300


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the settings of a store with the sample bars of the week."""
    folder = tmp_path_factory.mktemp("checkout") / "demo"
    folder.mkdir()
    files = [f"sample/bars/{day}.csv" for day in HOURS]
    stated = ("--tz", "America/New_York", "--label", "open", "--quiet")
    for arguments in (("init", "--demo", "--quiet"), ("import", *files, *stated)):
        subprocess.run([COMMAND, *arguments], cwd=folder, check=True, timeout=GUARD_SECONDS)
    return folder / "sc.toml"


def streamed(settings: Path) -> pl.DataFrame:
    """Return the stored bars of the regular hours of the week, with their session."""
    store = store_of(load_config(settings))
    spans = [
        (day, parse_moment(opened), parse_moment(closed)) for day, (opened, closed) in HOURS.items()
    ]
    interval = load_config(settings).base_interval
    symbols = store.spans(interval)["symbol"].to_list()
    bars = store.read(interval, symbols, spans[0][1], spans[-1][2])
    days = pl.DataFrame(spans, schema=["session", "opened", "closed"], orient="row")
    return bars.join_where(
        days, pl.col("start") >= pl.col("opened"), pl.col("start") < pl.col("closed")
    )


def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("complete_system", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its dataclasses look for their module
    spec.loader.exec_module(module)
    return module


def expected_watches(bars: pl.DataFrame) -> pl.DataFrame:
    """Return bars, breakouts and led minutes of each watched symbol."""
    own = bars.filter(pl.col("symbol").is_in(WATCHED)).sort("symbol", "start")
    before = pl.col("high").shift(1).rolling_max(20).over("symbol")  # over the nights as well
    own = own.with_columns(
        breakout=(pl.col("close") > before).fill_null(value=False),
        rise=pl.col("close") / pl.col("open"),
    )
    # What is known of the others at each minute's end: their newest bar, of whatever session.
    grid = (
        own.select("session", "start").unique().join(pl.DataFrame({"symbol": WATCHED}), how="cross")
    )
    known = (
        grid.join(own.select("symbol", "start", "rise"), on=["symbol", "start"], how="left")
        .sort("symbol", "start")
        .with_columns(pl.col("rise").forward_fill().over("symbol"))
    )
    best = known.group_by("start").agg(best=pl.col("rise").max())
    return (
        own.join(best, on="start")
        .group_by("symbol", maintain_order=True)
        .agg(
            bars=pl.len(),
            breakouts=pl.col("breakout").sum(),
            led=(pl.col("rise") == pl.col("best")).sum(),
        )
    )


def test_its_numbers_are_those_of_the_stored_bars(
    settings: Path, sc: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    bars = streamed(settings)
    main = example().main(settings)
    week = asyncio.run(asyncio.wait_for(main, GUARD_SECONDS))
    replay = week.replay

    seen = [(watch.symbol, watch.bars, watch.breakouts, watch.led) for watch in week.watches]
    assert seen == expected_watches(bars).rows()
    assert replay.bars == len(bars)
    assert replay.result["turnover"] == pytest.approx((bars["close"] * bars["volume"]).sum(), abs=1)

    last = bars.filter(pl.col("session") == "2018-11-23")
    for symbol, found in week.metrics.items():
        own = last.filter(pl.col("symbol") == symbol)
        assert found.bar_quality == pytest.approx(100 * len(own) / 210)
        assert (found.high, found.low) == (own["high"].max(), own["low"].min())
        assert found.volume == pytest.approx(own["volume"].sum())
        assert found.last_update - MINUTE == own["start"].max()

    for symbol, mean in week.averages.items():
        closes = bars.filter(pl.col("symbol") == symbol).sort("start")["close"]
        assert mean == pytest.approx(closes.tail(200).mean(), rel=1e-12)

    counts = bars.group_by("session").len().sort("session").rows()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" bars")[0] for line in lines] == [f"{day}: {n:,}" for day, n in counts]

    span = ("--from", "2018-11-19", "--to", "2018-11-23", "--config", settings)
    assert sc("replay", *span, "--json").document["digest"] == replay.digest


def test_it_runs_as_its_docstring_says(settings: Path) -> None:
    assert "make demo && .venv/bin/python examples/complete_system.py\n" in EXAMPLE.read_text()
    done = subprocess.run(
        [sys.executable, EXAMPLE],
        cwd=settings.parents[1],  # beside the folder "demo", as `make demo` leaves it
        capture_output=True,
        text=True,
        check=False,
        timeout=GUARD_SECONDS,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].startswith("Digest ")
