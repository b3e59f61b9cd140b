"""The ledger's gaps: what a change replaces and leaves, what is pending, who was asked."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from subprocess import PIPE, Popen
from threading import Event, Thread

import pytest

from stream_coord.compute.quality import GapRow
from stream_coord.errors import LedgerError
from stream_coord.stores.ledger import (
    Disagreement,
    GapChange,
    GapState,
    Ledger,
    SourceCall,
    open_ledger,
)

FRIDAY, MONDAY = "2018-11-23", "2018-11-26"
OPEN = 1_542_983_400_000_000
MINUTE = 60_000_000
WEB, FILES = "web: http https://bars.example/v1", "files: csv data/*.csv"
SILENT = GapRow(
    "SPY",
    FRIDAY,
    OPEN,
    OPEN + 3 * MINUTE,
    3,
    "no_trade",
    tries=1,
    last_try=OPEN + 9 * MINUTE,
    asked=(WEB, FILES),
    empty=(FILES,),
)
FILLED = GapRow("SPY", FRIDAY, OPEN + 5 * MINUTE, OPEN + 6 * MINUTE, 1, "filled", source=WEB)
WHOLE = GapRow("BRK.B", MONDAY, OPEN, OPEN + 390 * MINUTE, 390, "missing", kind="session")
TWO_VOLUMES = Disagreement(
    "SPY", OPEN + 5 * MINUTE, WEB, FILES, (1.5, 2.5, 0.1, 2.0, 100.0), (1.5, 2.5, 0.1, 2.0, 99.0)
)
CHANGE = GapChange(
    "1m",
    (("SPY", FRIDAY), ("BRK.B", FRIDAY), ("BRK.B", MONDAY)),
    (SILENT, FILLED, WHOLE),
    (TWO_VOLUMES,),
)
ANSWERED = SourceCall(WEB, OPEN, 0.25, 2, 4, 1, "answered")
FAILED = SourceCall(FILES, OPEN + 1, 1.5, 1, 3, 0, "failed", "no such file")


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    url = f"sqlite:///{tmp_path}/ledger.db"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_url")
    with open_ledger(url, tmp_path, create=True) as opened:
        yield opened


def ledger_url(ledger: Ledger) -> str:
    """Return the address of a ledger, with its password."""
    url: str = ledger._database.engine.url.render_as_string(hide_password=False)
    path = ledger._database.path
    return url if path is None else f"sqlite:///{path}"


@pytest.fixture
def run_id(ledger: Ledger) -> int:
    return begin_run(ledger)


def begin_run(ledger: Ledger) -> int:
    return ledger.begin_run(
        1,
        "fill-gaps",
        settings="",
        config_digest="",
        calendar="NYSE",
        calendar_version="5",
        store="delta:data/bars",
        program_version="0",
    )


def end_run(ledger: Ledger, run_id: int) -> None:
    ledger.finish_run(
        run_id,
        2,
        "failed",
        digest=None,
        sessions=0,
        bars=0,
        derived_bars=0,
        updates=0,
        timings={},
    )


def states(ledger: Ledger, interval: str = "1m") -> list[GapRow]:
    """Return all states without their runs."""
    found = ledger.gap_states(interval, "2000-01-01", "2100-01-01")
    return [
        GapRow(*(getattr(state, name) for name in GapRow.__dataclass_fields__)) for state in found
    ]


class TestStates:
    def test_a_range_that_stays_as_it_is_keeps_the_run_that_wrote_it(
        self, ledger: Ledger, run_id: int
    ) -> None:
        ledger.seal_gaps(run_id, CHANGE)
        later = begin_run(ledger)
        known = ledger.gap_states("1m", FRIDAY, MONDAY)
        tried = tuple(replace(gap, tries=2) if gap.state == "no_trade" else gap for gap in known)
        ledger.seal_gaps(later, replace(CHANGE, gaps=tried))
        runs = {gap.state: gap.run_id for gap in ledger.gap_states("1m", FRIDAY, MONDAY)}
        assert runs == {"no_trade": later, "filled": run_id, "missing": run_id}

    def test_they_come_back_as_they_were_sealed(self, ledger: Ledger, run_id: int) -> None:
        assert states(ledger) == []
        ledger.seal_gaps(run_id, CHANGE)
        assert ledger.gap_states("1m", FRIDAY, MONDAY) == [
            GapState(
                "SPY",
                FRIDAY,
                OPEN,
                OPEN + 3 * MINUTE,
                3,
                "no_trade",
                "minutes",
                None,
                1,
                OPEN + 9 * MINUTE,
                (WEB, FILES),
                (FILES,),
                run_id,
            ),
            GapState(
                "SPY",
                FRIDAY,
                OPEN + 5 * MINUTE,
                OPEN + 6 * MINUTE,
                1,
                "filled",
                "minutes",
                WEB,
                run_id=run_id,
            ),
            GapState(
                "BRK.B",
                MONDAY,
                OPEN,
                OPEN + 390 * MINUTE,
                390,
                "missing",
                "session",
                run_id=run_id,
            ),
        ]

    def test_they_are_of_the_sessions_and_symbols_asked_for(
        self, ledger: Ledger, run_id: int
    ) -> None:
        ledger.seal_gaps(run_id, CHANGE)
        ledger.seal_gaps(run_id, GapChange("5m", (("SPY", FRIDAY),), (SILENT,)))

        def starts(first: str, last: str, symbols: list[str] | None = None) -> list[object]:
            found = ledger.gap_states("1m", first, last, symbols)
            return [(state.symbol, (state.start - OPEN) // MINUTE) for state in found]

        assert starts(FRIDAY, FRIDAY) == [("SPY", 0), ("SPY", 5)]
        assert starts("2018-11-24", MONDAY) == [("BRK.B", 0)]
        assert starts("2018-11-24", "2018-11-25") == []
        assert starts(FRIDAY, MONDAY, ["BRK.B", "BRK.B", "X"]) == [("BRK.B", 0)]
        assert starts(FRIDAY, MONDAY, []) == []

    def test_more_symbols_than_fit_into_a_statement_keep_the_order(
        self, ledger: Ledger, run_id: int
    ) -> None:
        symbols = [f"S{n:05}" for n in range(25_000)]
        gaps = tuple(
            replace(WHOLE, symbol=symbol, session=session)
            for session in (FRIDAY, MONDAY)
            for symbol in symbols[::5_000]
        )
        scope = tuple((symbol, session) for session in (FRIDAY, MONDAY) for symbol in symbols)
        for _ in range(2):
            ledger.seal_gaps(run_id, GapChange("1m", scope, gaps))
        found = ledger.gap_states("1m", FRIDAY, MONDAY, [*symbols, *symbols])
        assert [(state.session, state.symbol) for state in found] == [
            (gap.session, gap.symbol) for gap in gaps
        ]

    def test_a_change_replaces_its_scope_and_nothing_else(
        self, ledger: Ledger, run_id: int
    ) -> None:
        ledger.seal_gaps(run_id, CHANGE)
        ledger.seal_gaps(run_id, GapChange("5m", (("SPY", FRIDAY),), (SILENT,)))
        later, filled = begin_run(ledger), replace(SILENT, state="filled", source=FILES)
        ledger.seal_gaps(later, GapChange("1m", (("SPY", FRIDAY), ("SPY", MONDAY)), (filled,)))
        assert states(ledger) == [filled, WHOLE]
        assert states(ledger, "5m") == [SILENT]
        runs = [state.run_id for state in ledger.gap_states("1m", FRIDAY, MONDAY)]
        assert runs == [later, run_id]

    def test_a_scope_without_gaps_is_forgotten(self, ledger: Ledger, run_id: int) -> None:
        ledger.seal_gaps(run_id, CHANGE)
        ledger.seal_gaps(run_id, GapChange("1m", (("SPY", FRIDAY),)))
        assert states(ledger) == [WHOLE]

    def test_sealing_twice_is_as_good_as_once(self, ledger: Ledger, run_id: int) -> None:
        for _ in range(2):
            ledger.seal_gaps(run_id, CHANGE)
            assert states(ledger) == [SILENT, FILLED, WHOLE]
            assert len(ledger.disagreements()) == 1

    @pytest.mark.parametrize("outside", [replace(SILENT, symbol="X"), replace(SILENT, session="X")])
    def test_a_gap_outside_the_scope_is_refused(
        self, ledger: Ledger, run_id: int, outside: GapRow
    ) -> None:
        ledger.seal_gaps(run_id, CHANGE)
        for call in (ledger.seal_gaps, ledger.pend_gaps):
            with pytest.raises(LedgerError, match=f"{outside.symbol} in session {outside.session}"):
                call(run_id, replace(CHANGE, gaps=(outside,)))
        assert states(ledger) == [SILENT, FILLED, WHOLE]
        assert ledger.pending_gaps() == []

    @pytest.mark.parametrize(
        "bad", [replace(FILLED, state="lost"), replace(FILLED, kind="hour"), SILENT]
    )
    def test_a_change_that_cannot_be_kept_changes_nothing(
        self, ledger: Ledger, run_id: int, bad: GapRow
    ) -> None:
        ledger.seal_gaps(run_id, CHANGE)
        ledger.pend_gaps(run_id, CHANGE)
        with pytest.raises(LedgerError):
            ledger.seal_gaps(run_id, GapChange("1m", (("SPY", FRIDAY),), (SILENT, bad)))
        assert states(ledger) == [SILENT, FILLED, WHOLE]
        assert ledger.pending_gaps() == [(run_id, CHANGE)]

    def test_names_of_sources_are_made_storable_alike(self, ledger: Ledger, run_id: int) -> None:
        odd, kept = "f: csv caf\udce9\0 'é' [/B]", r"f: csv caf\udce9\x00 'é' [/B]"
        gap = replace(SILENT, source=odd, asked=(odd, WEB), empty=(odd,))
        ledger.seal_gaps(run_id, GapChange("1m", (("SPY", FRIDAY),), (gap,)))
        (state,) = states(ledger)
        assert (state.source, state.asked, state.empty) == (kept, (kept, WEB), (kept,))


class TestPending:
    def test_a_change_comes_back_until_it_is_sealed(self, ledger: Ledger, run_id: int) -> None:
        ledger.pend_gaps(run_id, CHANGE)
        assert ledger.pending_gaps() == [(run_id, CHANGE)]
        assert (states(ledger), ledger.disagreements()) == ([], [])
        ledger.seal_gaps(run_id, CHANGE)
        assert ledger.pending_gaps() == []

    def test_a_run_has_one(self, ledger: Ledger, run_id: int) -> None:
        other, small = begin_run(ledger), GapChange("5m", ())
        ledger.pend_gaps(other, small)
        ledger.pend_gaps(run_id, small)
        ledger.pend_gaps(run_id, CHANGE)
        assert ledger.pending_gaps() == [(run_id, CHANGE), (other, small)]
        ledger.drop_pending(run_id)
        ledger.drop_pending(run_id)
        assert ledger.pending_gaps() == [(other, small)]
        assert states(ledger) == []
        ledger.seal_gaps(run_id, CHANGE)
        assert ledger.pending_gaps() == [(other, small)]

    def test_what_a_run_left_is_sealed_after_its_end(self, ledger: Ledger, run_id: int) -> None:
        ledger.pend_gaps(run_id, CHANGE)
        end_run(ledger, run_id)
        for number, change in ledger.pending_gaps():
            ledger.seal_gaps(number, change)
        assert states(ledger) == [SILENT, FILLED, WHOLE]
        assert ledger.pending_gaps() == []

    def test_only_a_running_run_has_something_pending(self, ledger: Ledger, run_id: int) -> None:
        end_run(ledger, run_id)
        for job, state in ((run_id, "failed"), (run_id + 1, "unknown")):
            with pytest.raises(LedgerError, match=state):
                ledger.pend_gaps(job, CHANGE)
        with pytest.raises(LedgerError, match=f"no run {run_id + 1}"):
            ledger.seal_gaps(run_id + 1, CHANGE)
        assert states(ledger) == []


class TestDisagreements:
    def test_both_bars_are_kept_for_every_run(self, ledger: Ledger, run_id: int) -> None:
        ledger.seal_gaps(run_id, CHANGE)
        later, price = begin_run(ledger), replace(TWO_VOLUMES, start=OPEN)
        ledger.seal_gaps(later, GapChange("5m", (), (), (TWO_VOLUMES, price)))
        found = ledger.disagreements()
        assert [(row.start, row.interval, row.run_id) for row in found] == [
            (OPEN, "5m", later),
            (OPEN + 5 * MINUTE, "1m", run_id),
            (OPEN + 5 * MINUTE, "5m", later),
        ]
        assert {(row.symbol, row.source, row.other) for row in found} == {("SPY", WEB, FILES)}
        assert {row.values for row in found} == {(1.5, 2.5, 0.1, 2.0, 100.0)}
        assert {row.other_values for row in found} == {(1.5, 2.5, 0.1, 2.0, 99.0)}
        assert ledger.disagreements("1m") == [found[1]]


class TestCalls:
    def test_they_come_back_in_their_order(self, ledger: Ledger, run_id: int) -> None:
        other = begin_run(ledger)
        ledger.record_calls(run_id, [FAILED, ANSWERED])
        ledger.record_calls(other, [ANSWERED])
        ledger.record_calls(run_id, [])
        ledger.record_calls(run_id, [ANSWERED])
        found = ledger.source_calls(run_id)
        assert [row.run_id for row in ledger.source_calls()] == [run_id, run_id, other, run_id]
        assert [row.outcome for row in found] == ["failed", "answered", "answered"]
        (first, second, _) = found
        assert (first.source, first.at, first.seconds) == (FILES, OPEN + 1, 1.5)
        assert (first.ranges, first.minutes, first.bars) == (1, 3, 0)
        assert (first.error, second.error) == ("no such file", None)
        assert (second.ranges, second.minutes, second.bars) == (2, 4, 1)

    def test_only_a_running_run_makes_them(self, ledger: Ledger, run_id: int) -> None:
        end_run(ledger, run_id)
        with pytest.raises(LedgerError, match="failed"):
            ledger.record_calls(run_id, [ANSWERED])
        assert ledger.source_calls() == []

    def test_a_long_error_is_cut_and_made_storable(self, ledger: Ledger, run_id: int) -> None:
        ledger.record_calls(run_id, [replace(FAILED, error="\0" + "x" * 1_000)])
        assert ledger.source_calls()[0].error == r"\x00" + "x" * 496


class TestAlone:
    """The right to do some work, which one process at a time has."""

    def test_the_second_waits_for_the_first(self, ledger: Ledger, tmp_path: Path) -> None:
        url = ledger_url(ledger)
        waits, done = Event(), Event()

        def second() -> None:
            with open_ledger(url, tmp_path) as other, other.alone("fill-gaps", waits.set):
                done.set()

        thread = Thread(target=second)
        with ledger.alone("fill-gaps", lambda: pytest.fail("nobody else is there")):
            thread.start()
            assert waits.wait(30)
            assert not done.is_set()
        thread.join(30)
        assert done.is_set()

    def test_whoever_is_killed_has_it_no_more(self, ledger: Ledger, tmp_path: Path) -> None:
        holder = (
            "import sys, time; from pathlib import Path\n"
            "from stream_coord.stores.ledger import open_ledger\n"
            f"with open_ledger({ledger_url(ledger)!r}, Path({str(tmp_path)!r})) as ledger:\n"
            "    with ledger.alone('fill-gaps', lambda: None):\n"
            "        print('taken', flush=True)\n"
            "        time.sleep(60)\n"
        )
        other = Popen([sys.executable, "-c", holder], stdout=PIPE, text=True)
        assert other.stdout is not None
        with other, ExitStack() as held:
            assert other.stdout.readline() == "taken\n"
            other.kill()
            other.wait()
            held.enter_context(ledger.alone("fill-gaps", lambda: None))

    def test_what_is_raised_inside_is_raised(self, ledger: Ledger) -> None:
        with pytest.raises(ValueError, match="mine"), ledger.alone("fill-gaps", lambda: None):
            raise ValueError("mine")
        with ledger.alone("fill-gaps", lambda: pytest.fail("nobody else is there")):
            pass
