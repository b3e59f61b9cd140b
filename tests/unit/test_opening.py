"""How the settings become upkeep."""

from __future__ import annotations

from pathlib import Path

import pytest

from stream_coord.config import load_config
from stream_coord.errors import ConfigError
from stream_coord.interval import MINUTE, SECOND, Interval
from stream_coord.opening import attempts_of, upkeep_of


def settings(folder: Path, text: str) -> Path:
    path = folder / "sc.toml"
    path.write_text(text)
    return path


def test_what_is_set_is_what_upkeep_does(tmp_path: Path) -> None:
    text = """
    [upkeep]
    check_interval_seconds = 90
    grace_seconds = 30
    max_retries = 3
    synthesize = "flat"
    derived_intervals = ["1h", "5m", "60m"]
    [[sources]]
    name = "backup"
    kind = "store"
    url = "delta:other"
    """
    config = load_config(settings(tmp_path, text))
    upkeep = upkeep_of(config)
    assert (upkeep.check_micros, upkeep.grace_micros) == (90 * SECOND, 30 * SECOND)
    assert (upkeep.attempts, upkeep.synthesize) == (3, True)
    assert upkeep.derived == (Interval(5 * MINUTE), Interval(60 * MINUTE))
    assert upkeep.enquirer is not None
    assert upkeep.enquirer.names == ("backup: store delta:other",)


def test_by_default_five_and_fifteen_minutes_are_derived_and_nobody_is_asked(
    tmp_path: Path,
) -> None:
    upkeep = upkeep_of(load_config(settings(tmp_path, "")))
    assert [str(interval) for interval in upkeep.derived] == ["5m", "15m"]
    assert upkeep.enquirer is None
    assert (upkeep.attempts, upkeep.synthesize, upkeep.check_micros) == (5, False, MINUTE)


@pytest.mark.parametrize("text", ["enabled = false", "auto_compute_derived = false"])
def test_derived_bars_can_be_left_for_whoever_asks(tmp_path: Path, text: str) -> None:
    assert upkeep_of(load_config(settings(tmp_path, f"[upkeep]\n{text}"))).derived == ()


def test_without_upkeep_no_source_is_asked_nor_flat_bar_made(tmp_path: Path) -> None:
    text = """
    sources = [{ name = "backup", kind = "store", url = "delta:other" }]
    [upkeep]
    enabled = false
    synthesize = "flat"
    """
    upkeep = upkeep_of(load_config(settings(tmp_path, text)))
    assert (upkeep.enquirer, upkeep.synthesize) == (None, False)


@pytest.mark.parametrize(
    ("text", "attempts"),
    [("max_retries = 0", 1), ("max_retries = 2", 2), ("retry_missing_bars = false", 1)],
)
def test_a_minute_is_asked_for_at_least_once(tmp_path: Path, text: str, attempts: int) -> None:
    assert attempts_of(load_config(settings(tmp_path, f"[upkeep]\n{text}"))) == attempts


def test_a_source_that_cannot_be_is_told_before_anything_begins(tmp_path: Path) -> None:
    text = 'sources = [{ name = "own", kind = "store", url = "delta:data/bars" }]'
    with pytest.raises(ConfigError, match="cannot be its own source"):
        upkeep_of(load_config(settings(tmp_path, text)))
