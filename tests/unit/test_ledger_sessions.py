"""The ledger's pages on the life of sessions: states, cursors, seals."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from subprocess import PIPE, Popen, run

import pytest

from stream_coord.compute.quality import GapRow, QualityRow
from stream_coord.errors import LedgerError, LedgerMissingError
from stream_coord.stores.ledger import (
    Cursor,
    Ledger,
    SealRecord,
    SealRow,
    SessionRecord,
    StateRecord,
    StateRow,
    open_ledger,
)

WEDNESDAY, FRIDAY, MONDAY = "2018-11-21", "2018-11-23", "2018-11-26"
OPEN = 1_542_983_400_000_000
CLOSE = OPEN + 210 * 60_000_000
OPENED = StateRecord(FRIDAY, OPEN, "PRE_MARKET", "ACTIVE")
SILENT = StateRecord(FRIDAY, OPEN + 1, "ACTIVE", "TIMEOUT")
ENDED = StateRecord(FRIDAY, CLOSE, "TIMEOUT", "ENDED")
FAILED = StateRecord(FRIDAY, CLOSE + 1, "ENDED", "ERROR", "the store is damaged")
MENDED = StateRecord(FRIDAY, CLOSE + 2, "ERROR", "ENDED")
QUALITY = [
    QualityRow("spy", FRIDAY, 210, 0, 210),
    QualityRow("SPY", FRIDAY, 210, 205, 1, 2, 2, 3),
    QualityRow("BRK.B", FRIDAY, 210, 210),
]
SEAL = SealRecord(FRIDAY, OPEN, CLOSE, 415, "v1", QUALITY, {"SPY": "5f", "BRK.B": "a0"})


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgresql":
        address: str = request.getfixturevalue("postgres_url")
        return address
    return f"sqlite:///{tmp_path}/ledger.db"


@pytest.fixture
def ledger(url: str, tmp_path: Path) -> Iterator[Ledger]:
    with open_ledger(url, tmp_path, create=True) as opened:
        yield opened


@pytest.fixture
def run_id(ledger: Ledger) -> int:
    return begin_run(ledger)


def begin_run(ledger: Ledger) -> int:
    return ledger.begin_run(
        1,
        "roll",
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
        "done",
        digest=None,
        sessions=0,
        bars=0,
        derived_bars=0,
        updates=0,
        timings={},
    )


def of_session(session: str) -> SealRecord:
    """Return a seal of another session."""
    quality = [replace(row, session=session) for row in QUALITY]
    return replace(SEAL, session=session, quality=quality)


class TestStates:
    def test_they_come_back_in_the_order_they_were_recorded(
        self, ledger: Ledger, run_id: int
    ) -> None:
        other = begin_run(ledger)
        ledger.record_states(other, [ENDED])
        ledger.record_states(run_id, [SILENT, OPENED])
        ledger.record_states(run_id, [])
        ledger.record_states(run_id, [FAILED])
        assert ledger.states() == [
            StateRow(FRIDAY, OPEN + 1, "ACTIVE", "TIMEOUT", None, run_id),
            StateRow(FRIDAY, OPEN, "PRE_MARKET", "ACTIVE", None, run_id),
            StateRow(FRIDAY, CLOSE + 1, "ENDED", "ERROR", "the store is damaged", run_id),
            StateRow(FRIDAY, CLOSE, "TIMEOUT", "ENDED", None, other),
        ]
        assert [row.entered for row in ledger.states(other)] == ["ENDED"]
        assert ledger.states(other + 1) == []

    @pytest.mark.parametrize(
        ("first", "last", "wanted"),
        [
            (None, None, [WEDNESDAY, FRIDAY, MONDAY]),
            (FRIDAY, None, [FRIDAY, MONDAY]),
            (None, FRIDAY, [WEDNESDAY, FRIDAY]),
            (FRIDAY, FRIDAY, [FRIDAY]),
            ("2018-11-22", "2018-11-22", []),
        ],
    )
    def test_they_are_of_the_sessions_asked_for(
        self, ledger: Ledger, run_id: int, first: str, last: str, wanted: list[str]
    ) -> None:
        days = (WEDNESDAY, FRIDAY, MONDAY)
        ledger.record_states(run_id, [replace(OPENED, session=day) for day in days])
        assert [row.session for row in ledger.states(None, first, last)] == wanted
        assert [row.session for row in ledger.states(run_id, first, last)] == wanted

    def test_a_run_records_them_with_its_session(self, ledger: Ledger, run_id: int) -> None:
        gap = GapRow("SPY", FRIDAY, OPEN, OPEN + 60_000_000, 1, "missing")
        record = SessionRecord(
            FRIDAY, OPEN, CLOSE, "d", "v", 1, 0, 0, QUALITY, [gap], [OPENED, ENDED]
        )
        ledger.record_session(run_id, record)
        assert [row.entered for row in ledger.states(run_id)] == ["ACTIVE", "ENDED"]
        assert (len(ledger.run_quality(run_id)), ledger.run_gaps(run_id)) == (3, [gap])
        ledger.record_session(run_id, SessionRecord(MONDAY, OPEN, CLOSE, "d", "v", 1, 0, 0, [], []))
        assert len(ledger.states(run_id)) == 2

    def test_a_session_with_states_that_cannot_be_kept_is_not_recorded(
        self, ledger: Ledger, run_id: int
    ) -> None:
        record = SessionRecord(FRIDAY, OPEN, CLOSE, "d", "v", 1, 0, 0, QUALITY, [])
        other = replace(record, states=[replace(OPENED, session=MONDAY)])
        with pytest.raises(LedgerError, match=f"row of session {MONDAY} is among those of"):
            ledger.record_session(run_id, other)
        with pytest.raises(LedgerError):
            ledger.record_session(run_id, replace(record, states=[replace(OPENED, time=2**63)]))
        assert (ledger.run_sessions(run_id), ledger.states()) == ([], [])

    def test_a_cause_is_made_storable(self, ledger: Ledger, run_id: int) -> None:
        cause = "caf\udce9\0 [/B] 100 %" + "x" * 1_000
        kept = r"caf\udce9\x00 [/B] 100 %" + "x" * 1_000
        ledger.flag_error(run_id, "mine", replace(FAILED, cause=cause), 5)
        assert [row.cause for row in ledger.states()] == [kept]
        assert ledger.cursor("mine") == Cursor("mine", FRIDAY, 5, run_id, kept)


class TestSeal:
    def test_it_moves_the_cursor_on(self, ledger: Ledger, run_id: int) -> None:
        assert ledger.cursor("mine") is None
        ledger.seal_session(run_id, "mine", SEAL, MONDAY, 7)
        assert ledger.cursor("mine") == Cursor("mine", MONDAY, 7, run_id, None)
        later = begin_run(ledger)
        ledger.seal_session(later, "mine", of_session(MONDAY), "2018-11-27", 8)
        assert ledger.cursor("mine") == Cursor("mine", "2018-11-27", 8, later, None)
        assert [row.session for row in ledger.seals("mine")] == [FRIDAY, MONDAY]

    def test_it_comes_back_as_it_was(self, ledger: Ledger, run_id: int) -> None:
        ledger.seal_session(run_id, "mine", SEAL, MONDAY, 7, [OPENED, ENDED])
        (seal,) = ledger.seals()
        assert seal == SealRow(FRIDAY, OPEN, CLOSE, 415, "v1", seal.id, "mine", run_id, 7)
        assert ledger.seal_quality(seal.id) == [
            QualityRow("BRK.B", FRIDAY, 210, 210),
            QualityRow("SPY", FRIDAY, 210, 205, 1, 2, 2, 3),
            QualityRow("spy", FRIDAY, 210, 0, 210),
        ]
        checksums = ledger.seal_checksums(seal.id)
        assert list(checksums.items()) == [("BRK.B", "a0"), ("SPY", "5f"), ("spy", "")]
        assert [row.entered for row in ledger.states(run_id)] == ["ACTIVE", "ENDED"]
        assert (ledger.seal_quality(seal.id + 1), ledger.seal_checksums(seal.id + 1)) == ([], {})

    def test_cursors_know_nothing_of_each_other(self, ledger: Ledger, run_id: int) -> None:
        ledger.seal_session(run_id, "mine", SEAL, MONDAY, 7)
        ledger.seal_session(run_id, "hers", of_session(MONDAY), "2018-11-27", 8)
        ledger.seal_session(run_id, "hers", of_session("2018-11-27"), FRIDAY, 9)
        ledger.seal_session(run_id, "hers", SEAL, MONDAY, 10)
        ledger.flag_error(run_id, "hers", replace(FAILED, session=MONDAY), 11)
        assert ledger.cursor("mine") == Cursor("mine", MONDAY, 7, run_id, None)
        assert ledger.cursor("other") is None
        assert [(row.key, row.session) for row in ledger.seals()] == [
            ("hers", FRIDAY),
            ("hers", MONDAY),
            ("hers", "2018-11-27"),
            ("mine", FRIDAY),
        ]
        assert [row.at for row in ledger.seals("mine")] == [7]
        assert ledger.seals("other") == []

    def test_it_is_refused_unless_the_cursor_is_there(self, ledger: Ledger, run_id: int) -> None:
        ledger.seal_session(run_id, "mine", SEAL, MONDAY, 7)
        for session in (FRIDAY, "2018-11-27"):
            with pytest.raises(LedgerError, match=f"{session} is not .* at {MONDAY} by now"):
                ledger.seal_session(run_id, "mine", of_session(session), "2018-11-28", 8, [ENDED])
        assert ledger.cursor("mine") == Cursor("mine", MONDAY, 7, run_id, None)
        assert [row.at for row in ledger.seals()] == [7]
        assert ledger.states() == []

    def test_a_seal_of_the_same_session_is_replaced(self, ledger: Ledger, run_id: int) -> None:
        ledger.seal_session(run_id, "mine", SEAL, FRIDAY, 7)
        (old,) = ledger.seals()
        again = replace(SEAL, bars=210, quality=QUALITY[2:], checksums={"BRK.B": "a1"})
        ledger.seal_session(run_id, "mine", again, MONDAY, 8)
        (new,) = ledger.seals()
        assert (new.bars, new.at) == (210, 8)
        assert ledger.seal_quality(new.id) == QUALITY[2:]
        assert ledger.seal_checksums(new.id) == {"BRK.B": "a1"}
        if old.id != new.id:
            assert ledger.seal_quality(old.id) == []

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"quality": [*QUALITY, replace(QUALITY[0], session=MONDAY)]}, MONDAY),
            ({"checksums": {"SPY": "5f", "QQQ": "0"}}, "checksum of QQQ"),
            ({"quality": [*QUALITY, QUALITY[0]]}, None),
            ({"bars": 2**63}, None),
        ],
    )
    def test_one_that_cannot_be_kept_changes_nothing(
        self, ledger: Ledger, run_id: int, change: dict[str, object], message: str | None
    ) -> None:
        ledger.seal_session(run_id, "mine", of_session(WEDNESDAY), FRIDAY, 7)
        known = ledger.seals()
        bad = SealRecord(**(vars(SEAL) | change))
        with pytest.raises(LedgerError, match=message):
            ledger.seal_session(run_id, "mine", bad, MONDAY, 8, [ENDED])
        assert ledger.cursor("mine") == Cursor("mine", FRIDAY, 7, run_id, None)
        assert (ledger.seals(), ledger.states()) == (known, [])

    def test_states_that_cannot_be_kept_undo_it(self, ledger: Ledger, run_id: int) -> None:
        with pytest.raises(LedgerError):
            ledger.seal_session(run_id, "mine", SEAL, MONDAY, 8, [replace(ENDED, time=2**63)])
        assert (ledger.seals(), ledger.states(), ledger.cursor("mine")) == ([], [], None)


class TestError:
    def test_it_keeps_the_cursor_where_it_is_until_it_is_cleared(
        self, ledger: Ledger, run_id: int
    ) -> None:
        ledger.seal_session(run_id, "mine", of_session(WEDNESDAY), FRIDAY, 7)
        flagged, cleared = begin_run(ledger), begin_run(ledger)
        ledger.flag_error(flagged, "mine", FAILED, 8)
        assert ledger.cursor("mine") == Cursor("mine", FRIDAY, 8, flagged, "the store is damaged")
        with pytest.raises(LedgerError, match=f"{FRIDAY} is in error: the store is damaged\n"):
            ledger.seal_session(flagged, "mine", SEAL, MONDAY, 9)
        ledger.clear_error(cleared, "mine", MENDED, 10)
        assert ledger.cursor("mine") == Cursor("mine", FRIDAY, 10, cleared, None)
        ledger.seal_session(cleared, "mine", SEAL, MONDAY, 11)
        assert [(row.left, row.entered, row.run_id) for row in ledger.states()] == [
            ("ENDED", "ERROR", flagged),
            ("ERROR", "ENDED", cleared),
        ]

    def test_it_makes_the_cursor_where_there_is_none(self, ledger: Ledger, run_id: int) -> None:
        ledger.flag_error(run_id, "mine", FAILED, 8)
        assert ledger.cursor("mine") == Cursor("mine", FRIDAY, 8, run_id, "the store is damaged")

    def test_it_is_of_the_session_that_the_cursor_is_at(self, ledger: Ledger, run_id: int) -> None:
        ledger.seal_session(run_id, "mine", of_session(WEDNESDAY), FRIDAY, 7)
        with pytest.raises(LedgerError, match=f"{MONDAY} is not .* at {FRIDAY} by now"):
            ledger.flag_error(run_id, "mine", replace(FAILED, session=MONDAY), 8)
        assert ledger.cursor("mine") == Cursor("mine", FRIDAY, 7, run_id, None)
        ledger.flag_error(run_id, "mine", FAILED, 8)
        with pytest.raises(LedgerError, match=f"{MONDAY} is not .* at {FRIDAY} by now"):
            ledger.clear_error(run_id, "mine", replace(MENDED, session=MONDAY), 9)
        assert ledger.cursor("mine") == Cursor("mine", FRIDAY, 8, run_id, "the store is damaged")
        assert [row.entered for row in ledger.states()] == ["ERROR"]

    @pytest.mark.parametrize("cause", [None, ""])
    def test_it_has_a_cause(self, ledger: Ledger, run_id: int, cause: str | None) -> None:
        with pytest.raises(LedgerError, match="no cause"):
            ledger.flag_error(run_id, "mine", replace(FAILED, cause=cause), 8)
        assert (ledger.cursor("mine"), ledger.states()) == (None, [])

    def test_there_is_one_to_clear(self, ledger: Ledger, run_id: int) -> None:
        for _ in range(2):
            with pytest.raises(LedgerError, match=f"no error of session {FRIDAY} to clear"):
                ledger.clear_error(run_id, "mine", MENDED, 9)
            ledger.flag_error(run_id, "mine", FAILED, 8)
            ledger.clear_error(run_id, "mine", MENDED, 9)
        assert len(ledger.states()) == 4


WRITES: dict[str, Callable[[Ledger, int], None]] = {
    "states": lambda ledger, run: ledger.record_states(run, [OPENED]),
    "no states": lambda ledger, run: ledger.record_states(run, []),
    "seal": lambda ledger, run: ledger.seal_session(run, "mine", SEAL, MONDAY, 9),
    "flag": lambda ledger, run: ledger.flag_error(run, "mine", FAILED, 9),
    "clear": lambda ledger, run: ledger.clear_error(run, "mine", MENDED, 9),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
def test_only_a_running_run_writes(
    ledger: Ledger, run_id: int, write: Callable[[Ledger, int], None]
) -> None:
    ledger.flag_error(run_id, "mine", FAILED, 3)
    cursor, states = ledger.cursor("mine"), ledger.states()
    end_run(ledger, run_id)
    for job, state in ((run_id, "done"), (run_id + 1, "unknown")):
        with pytest.raises(LedgerError, match=f"is {state}, not running"):
            write(ledger, job)
    assert (ledger.cursor("mine"), ledger.states(), ledger.seals()) == (cursor, states, [])


def test_of_two_processes_one_seals_a_session(ledger: Ledger, url: str) -> None:
    code = """
import sys
from pathlib import Path
from stream_coord.errors import LedgerError, LedgerMissingError
from stream_coord.stores.ledger import QualityRow, SealRecord, open_ledger
with open_ledger(sys.argv[1], Path("/")) as ledger:
    run = ledger.begin_run(1, sys.argv[2], settings="", config_digest="", calendar="",
                           calendar_version="", store="", program_version="")
    print("open", flush=True)
    sys.stdin.readline()
    refused = 0
    for day in range(1, 25):
        this, following = f"2018-11-{day:02}", f"2018-11-{day + 1:02}"
        quality = [QualityRow(str(n), this, 1, 1) for n in range(50)]
        seal = SealRecord(this, 0, 1, 50, sys.argv[2], quality, {})
        try:
            ledger.seal_session(run, "mine", seal, following, day)
        except LedgerError as error:
            words = f"session {this} is not the current one: the ledger is at "
            assert error.message.startswith(words), error
            refused += 1
    print(refused)
"""
    names = ("left", "right")
    both = [
        Popen([sys.executable, "-c", code, url, name], stdin=PIPE, stdout=PIPE, text=True)
        for name in names
    ]
    for each in both:
        assert each.stdout is not None
        assert each.stdout.readline() == "open\n"
    for each in both:
        assert each.stdin is not None
        each.stdin.write("go\n")
        each.stdin.flush()
    refused = [int(each.communicate()[0]) for each in both]
    seals = ledger.seals("mine")
    assert [seal.session for seal in seals] == [f"2018-11-{day:02}" for day in range(1, 25)]
    sealed = [sum(seal.data_version == name for seal in seals) for name in names]
    assert [24 - n for n in sealed] == refused
    cursor = ledger.cursor("mine")
    assert cursor is not None
    assert cursor.session == "2018-11-25"
    assert {len(ledger.seal_quality(seal.id)) for seal in seals} == {50}


def test_an_interrupt_while_a_connection_is_let_go_prints_nothing(url: str, tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from stream_coord.stores.ledger import open_ledger
def interrupted(_):
    raise KeyboardInterrupt
ledger = open_ledger(sys.argv[1], Path("/"), create=True)
ledger.seals()
dialect = ledger._database.engine.dialect
dialect.do_close = dialect.do_terminate = interrupted
try:
    ledger.close()
except KeyboardInterrupt:
    print("stopped")
"""
    done = run([sys.executable, "-c", code, url], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("stopped\n", "")


def test_one_that_is_not_there_says_what_makes_one(tmp_path: Path) -> None:
    with pytest.raises(LedgerMissingError) as caught:
        open_ledger("sqlite:///none.db", tmp_path)
    hint = "`sc import`, `sc replay` or `sc roll` makes one; or correct [ledger] url."
    assert caught.value.hint == hint
