"""The record of `sc fill-gaps` in the ledger, however the job ends."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from stream_coord import filling
from stream_coord.bars import FIELDS
from stream_coord.clock import FixedClock, parse_moment
from stream_coord.config import load_config
from stream_coord.errors import LedgerError, StoreError
from stream_coord.filling import FillInterruptedError, fill_store
from stream_coord.interval import Interval
from stream_coord.opening import Plan, plan_replay
from stream_coord.stores import open_store
from stream_coord.stores.ledger import Ledger, open_ledger
from stream_coord.upkeep.fill import FillOptions, FillSummary

CLOCK = FixedClock(parse_moment("2018-11-24T00:00:00Z"))
OPENS = parse_moment("2018-11-23T14:30:00Z")
SETTINGS = """
[store]
url = "sqlite:///bars.db"
[upkeep]
max_retries = 3
grace_seconds = 7
[[sources]]
name = "gone"
kind = "store"
url = "postgresql+psycopg://u:${FILL_PW}@127.0.0.1:9/none?connect_timeout=1"
"""


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """Return the plan of one session of which the store has its first minute."""
    monkeypatch.setenv("FILL_PW", "sesame")
    (tmp_path / "sc.toml").write_text(SETTINGS)
    store = open_store("sqlite:///bars.db", tmp_path, create=True)
    bar = dict.fromkeys(FIELDS, 1.0)
    store.write(Interval.parse("1m"), pl.DataFrame([{"symbol": "A", "start": OPENS, **bar}]))
    store.close()
    return plan_replay(load_config(tmp_path / "sc.toml"), date(2018, 11, 23))


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with open_ledger("sqlite:///ledger.db", tmp_path, create=True) as opened:
        yield opened


def test_a_run_and_its_questions_are_recorded_without_secrets(plan: Plan, ledger: Ledger) -> None:
    """The source is a server that is not there."""
    done = fill_store(plan, ledger, CLOCK)
    (run,) = ledger.runs()
    assert (done.run, run.command, run.status) == (run.id, "fill-gaps", "done")
    assert (run.sessions, run.bars, run.digest, run.error) == (1, 0, None, None)
    assert (run.store, run.calendar) == (plan.store.url, "NYSE")
    (call,) = ledger.source_calls(run.id)
    assert call.outcome == "failed"
    assert done.summary.failures == [f"{call.source}: {call.error}"]
    assert "sesame" not in f"{run} {call}"
    assert [gap.tries for gap in ledger.gap_states("1m", "2018-11-23", "2018-11-23")] == [1]


def test_the_settings_say_how_often_and_how_late(
    plan: Plan, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def note(*given: object) -> FillSummary:
        seen.append(given[5])
        return FillSummary()

    monkeypatch.setattr(filling, "fill_gaps", note)
    fill_store(plan, ledger, CLOCK, reopen=True)
    fill_store(plan, None, CLOCK, dry_run=True)
    assert seen == [
        FillOptions(attempts=3, grace_micros=7_000_000, reopen=True),
        FillOptions(attempts=3, grace_micros=7_000_000, dry_run=True),
    ]
    assert len(ledger.runs()) == 1


@pytest.mark.parametrize(
    ("error", "raised", "said"),
    [
        (StoreError("no room for sesame"), StoreError, "failed: StoreError: no room for ***"),
        (MemoryError(), MemoryError, "failed: MemoryError"),
        (KeyboardInterrupt(), FillInterruptedError, "interrupted: stopped after filling 0 minutes"),
    ],
)
def test_a_run_that_is_stopped_says_why(
    plan: Plan,
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    raised: type[BaseException],
    said: str,
) -> None:
    def stop(*_: object) -> FillSummary:
        raise error

    monkeypatch.setattr(filling, "fill_gaps", stop)
    with pytest.raises(raised):
        fill_store(plan, ledger, CLOCK)
    (run,) = ledger.runs()
    assert f"{run.status}: {run.error}" == said
    assert run.sessions == 0
    assert run.finished == CLOCK.now()


def test_what_stopped_a_run_is_reported_though_the_ledger_fails_too(
    plan: Plan, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> FillSummary:
        ledger.close()
        raise StoreError("first")

    def fail(*_: object, **__: object) -> None:
        raise LedgerError("second")

    monkeypatch.setattr(filling, "fill_gaps", stop)
    monkeypatch.setattr(ledger, "finish_run", fail)
    with pytest.raises(StoreError, match="first"):
        fill_store(plan, ledger, CLOCK)


def test_only_a_dry_run_can_do_without_a_ledger(plan: Plan) -> None:
    with pytest.raises(ValueError, match="only a dry run"):
        fill_store(plan, None, CLOCK)
