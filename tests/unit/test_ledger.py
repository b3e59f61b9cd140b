"""The ledger: what is written comes back, an address is checked, a schema has a version."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
import sqlalchemy as sa

from stream_coord.bars import FIELDS
from stream_coord.compute.quality import GapRow, QualityRow
from stream_coord.errors import ConfigError, LedgerError, StoreError
from stream_coord.stores.database import Schema, open_database, prepare
from stream_coord.stores.ledger import (
    FileRecord,
    Ledger,
    Outcome,
    SessionRecord,
    SessionRow,
    open_ledger,
)
from stream_coord.stores.ledger import schema as ledger_schema

URL = "sqlite:///data/ledger.db"
FILE = FileRecord("spy.csv", "csv", 10, 5, 1, 1, 1, 2, 3)
SESSION = SessionRecord(
    session="2018-11-23",
    open=1_542_983_400_000_000,
    close=1_542_996_000_000_000,
    digest="d1",
    data_version="v1",
    bars=419,
    derived_bars=80,
    updates=2,
    quality=[
        QualityRow("SPY", "2018-11-23", 210, 209, missing=1),
        QualityRow("BRK.B", "2018-11-23", 210, 207, no_trade=2, unresolved=1, filled=4),
    ],
    gaps=[
        GapRow("SPY", "2018-11-23", 1_542_983_460_000_000, 1_542_983_520_000_000, 1, "missing"),
        GapRow(
            "SPY",
            "2018-11-23",
            1_542_983_580_000_000,
            1_542_983_640_000_000,
            1,
            "filled",
            kind="before_first",
            source="caf\\udce9: csv",
            tries=2,
            last_try=1_542_983_700_000_000,
        ),
    ],
)
NO_REVISIONS = pl.DataFrame()
NO_REJECTS = pl.DataFrame()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the address of a database that is not there, or empty."""
    if request.param == "postgresql":
        address: str = request.getfixturevalue("postgres_url")
        return address
    return f"sqlite:///{tmp_path}/ledger.db"


@pytest.fixture
def ledger(url: str, tmp_path: Path) -> Iterator[Ledger]:
    with open_ledger(url, tmp_path, create=True) as opened:
        yield opened


def begin_run(ledger: Ledger, command: str = "replay", now: int = 1_000) -> int:
    return ledger.begin_run(
        now,
        command,
        settings="symbols = ['SPY']",
        config_digest="c0ffee",
        calendar="NYSE",
        calendar_version="5.5",
        store="delta:data/bars",
        program_version="0.1.0",
    )


def finish_run(
    ledger: Ledger, run_id: int, status: Outcome = "done", error: str | None = None
) -> None:
    ledger.finish_run(
        run_id,
        2_000,
        status,
        digest="d0",
        sessions=1,
        bars=419,
        derived_bars=80,
        updates=2,
        timings={"startup": 0.25, "total": 1.5},
        error=error,
    )


def revisions(*rows: tuple[str, int, float, float], path: str = FILE.path) -> pl.DataFrame:
    """Rows are (kind, start, old price, new price) of SPY."""
    return pl.DataFrame(
        [
            {
                "path": path,
                "kind": kind,
                "symbol": "SPY",
                "start": start,
                **{f"old_{field}": old for field in FIELDS},
                **dict.fromkeys(FIELDS, new),
            }
            for kind, start, old, new in rows
        ]
    )


def rejects(*rows: tuple[int, str, str], path: str = FILE.path) -> pl.DataFrame:
    """Rows are (row, reason, raw)."""
    return pl.DataFrame(
        [
            {"path": path, "row": row, "symbol": None, "start": None, "reason": why, "raw": raw}
            for row, why, raw in rows
        ],
        schema_overrides={"symbol": pl.String, "start": pl.Int64},
    )


def import_file(
    ledger: Ledger,
    revised: pl.DataFrame = NO_REVISIONS,
    rejected: pl.DataFrame = NO_REJECTS,
    *,
    interval: str = "1m",
    file: FileRecord = FILE,
) -> int:
    import_id = ledger.begin_import(1_000, interval, "tz = 'UTC'")
    ledger.record_files(import_id, [file], revised, rejected)
    ledger.seal_files(import_id, [file.path])
    ledger.finish_import(import_id, 2_000, "done")
    return import_id


class TestQuality:
    def test_percentages_are_of_the_minutes_expected(self) -> None:
        row = QualityRow("SPY", "2018-11-23", 210, 207, no_trade=2, unresolved=1, filled=4)
        assert row.quality == pytest.approx(98.571428571428)
        assert row.coverage == pytest.approx(99.523809523809)

    def test_no_bar_at_all_is_zero_and_nothing_expected_is_none(self) -> None:
        none = QualityRow("SPY", "2018-11-23", 210, 0, missing=210)
        assert (none.quality, none.coverage) == (0.0, 0.0)
        empty = QualityRow("SPY", "2018-11-23", 0, 0)
        assert (empty.quality, empty.coverage) == (None, None)

    def test_a_complete_session_is_exactly_100(self) -> None:
        assert {QualityRow("A", "2018-11-23", n, n).quality for n in range(1, 1441)} == {100.0}


class TestRuns:
    def test_a_run_that_began_is_running(self, ledger: Ledger) -> None:
        run_id = begin_run(ledger)
        (run,) = ledger.runs()
        assert (run.id, run.started, run.finished, run.status) == (run_id, 1_000, None, "running")
        assert (run.command, run.settings) == ("replay", "symbols = ['SPY']")
        assert (run.calendar, run.calendar_version) == ("NYSE", "5.5")
        assert (run.config_digest, run.store) == ("c0ffee", "delta:data/bars")
        assert (run.program_version, run.digest, run.error) == ("0.1.0", None, None)
        assert (run.sessions, run.bars, run.derived_bars, run.updates) == (0, 0, 0, 0)
        assert run.timings == {}

    def test_a_run_that_ended_says_how(self, ledger: Ledger) -> None:
        finish_run(ledger, begin_run(ledger), "failed", "on_bar raised")
        (run,) = ledger.runs()
        assert (run.finished, run.status, run.error) == (2_000, "failed", "on_bar raised")
        assert (run.digest, run.sessions, run.bars) == ("d0", 1, 419)
        assert (run.derived_bars, run.updates) == (80, 2)
        assert run.timings == {"startup": 0.25, "total": 1.5}

    def test_runs_come_newest_first_and_limited(self, ledger: Ledger) -> None:
        for command in ("a", "b", "c"):
            begin_run(ledger, command)
        assert [run.command for run in ledger.runs()] == ["c", "b", "a"]
        assert [run.command for run in ledger.runs(limit=2)] == ["c", "b"]

    def test_a_session_comes_back_as_it_was_recorded(self, ledger: Ledger) -> None:
        run_id = begin_run(ledger)
        later = replace(SESSION, session="2018-11-26", quality=[], gaps=[])
        ledger.record_session(run_id, later)
        ledger.record_session(run_id, SESSION)
        first = SessionRow(
            "2018-11-23", 1_542_983_400_000_000, 1_542_996_000_000_000, "d1", "v1", 419, 80, 2
        )
        assert ledger.run_sessions(run_id) == [first, replace(first, session="2018-11-26")]
        assert ledger.run_quality(run_id) == [SESSION.quality[1], SESSION.quality[0]]
        assert ledger.run_gaps(run_id) == SESSION.gaps

    def test_runs_do_not_see_each_others_sessions(self, ledger: Ledger) -> None:
        run_id, other = begin_run(ledger), begin_run(ledger)
        ledger.record_session(run_id, SESSION)
        ledger.record_session(other, replace(SESSION, quality=SESSION.quality[:1], gaps=[]))
        assert [row.symbol for row in ledger.run_quality(run_id)] == ["BRK.B", "SPY"]
        assert [row.symbol for row in ledger.run_quality(other)] == ["SPY"]
        assert ledger.run_gaps(other) == []
        assert ledger.run_sessions(99) == []

    def test_a_session_is_recorded_once_and_whole(self, ledger: Ledger) -> None:
        run_id = begin_run(ledger)
        ledger.record_session(run_id, SESSION)
        with pytest.raises(LedgerError):
            ledger.record_session(run_id, replace(SESSION, digest="another"))
        twice = [QualityRow("A", "2018-11-26", 1, 1)] * 2
        with pytest.raises(LedgerError):
            ledger.record_session(run_id, replace(SESSION, session="2018-11-26", quality=twice))
        assert [row.digest for row in ledger.run_sessions(run_id)] == ["d1"]
        assert len(ledger.run_quality(run_id)) == 2

    def test_rows_of_another_session_are_refused(self, ledger: Ledger) -> None:
        with pytest.raises(LedgerError, match=r"2018-11-23 is among those of 2018-11-26"):
            ledger.record_session(begin_run(ledger), replace(SESSION, session="2018-11-26"))

    def test_only_a_running_run_takes_sessions_and_an_end(self, ledger: Ledger) -> None:
        run_id = begin_run(ledger)
        finish_run(ledger, run_id)
        for job, state in ((run_id, "done"), (run_id + 1, "unknown")):
            with pytest.raises(LedgerError, match=state):
                ledger.record_session(job, SESSION)
            with pytest.raises(LedgerError, match=state):
                finish_run(ledger, job, "failed")
        assert [run.status for run in ledger.runs()] == ["done"]

    def test_5000_symbols_are_kept(self, ledger: Ledger) -> None:
        run_id = begin_run(ledger)
        quality = [QualityRow(f"S{n:04}", SESSION.session, 390, n % 391) for n in range(5_000)]
        ledger.record_session(run_id, replace(SESSION, quality=quality))
        assert ledger.run_quality(run_id) == quality

    def test_text_from_outside_is_only_text(self, ledger: Ledger) -> None:
        evil = "x'; DROP TABLE runs;-- %s :a ? \0 caf\udce9 BRK[/B]"
        run_id = begin_run(ledger, evil)
        finish_run(ledger, run_id, "failed", evil)
        (run,) = ledger.runs()
        assert run.command == run.error == r"x'; DROP TABLE runs;-- %s :a ? \x00 caf\udce9 BRK[/B]"


class TestImports:
    def test_counts_are_of_sealed_files(self, ledger: Ledger) -> None:
        import_id = ledger.begin_import(1_000, "1m", "tz = 'UTC'")
        files = [FILE, replace(FILE, path="b.csv", rows=100), replace(FILE, path="c.csv")]
        ledger.record_files(import_id, files, NO_REVISIONS, NO_REJECTS)
        ledger.seal_files(import_id, ["spy.csv", "b.csv"])
        (row,) = ledger.imports()
        assert (row.id, row.started, row.finished, row.status) == (
            import_id,
            1_000,
            None,
            "running",
        )
        assert (row.interval, row.settings) == ("1m", "tz = 'UTC'")
        assert (row.files, row.pending) == (2, 1)
        assert (row.rows, row.stored, row.duplicates, row.superseded) == (110, 10, 2, 2)
        assert (row.revised, row.rejected, row.out_of_session) == (2, 4, 6)

    def test_imports_come_newest_first_and_limited(self, ledger: Ledger) -> None:
        first = ledger.begin_import(1, "1m", "")
        second = ledger.begin_import(2, "1m", "")
        ledger.finish_import(first, 3, "interrupted")
        assert [(row.id, row.status) for row in ledger.imports()] == [
            (second, "running"),
            (first, "interrupted"),
        ]
        assert [row.id for row in ledger.imports(limit=1)] == [second]

    def test_another_attempt_replaces_the_one_before(self, ledger: Ledger) -> None:
        import_id = ledger.begin_import(1_000, "1m", "")
        other = replace(FILE, path="b.csv")
        ledger.record_files(import_id, [other], NO_REVISIONS, rejects((1, "nan", ""), path="b.csv"))
        ledger.record_files(
            import_id, [FILE], revisions(("revised", 60, 1.0, 2.0)), rejects((7, "nan", ""))
        )
        ledger.record_files(
            import_id,
            [replace(FILE, stored=6)],
            revisions(("revised", 120, 3.0, 4.0)),
            rejects((8, "unparsable", "")),
        )
        ledger.seal_files(import_id, ["spy.csv", "b.csv"])
        assert ledger.imports()[0].stored == 11
        assert ledger.revisions()["start"].to_list() == [120]
        assert ledger.reject_counts() == {"nan": 1, "unparsable": 1}

    def test_what_is_sealed_stays(self, ledger: Ledger) -> None:
        import_id = ledger.begin_import(1_000, "1m", "")
        ledger.record_files(import_id, [FILE], revisions(("revised", 60, 1.0, 2.0)), NO_REJECTS)
        ledger.seal_files(import_id, [FILE.path])
        ledger.seal_files(import_id, [FILE.path])
        with pytest.raises(LedgerError, match=r"sealed the file 'spy\.csv' already"):
            ledger.record_files(import_id, [FILE], NO_REVISIONS, NO_REJECTS)
        assert ledger.revision_counts() == {"revised": 1}

    def test_the_rest_of_a_file_becomes_part_of_it(self, ledger: Ledger) -> None:
        """Its counts and rows are added to those of the file when it is sealed, not before."""
        import_id = ledger.begin_import(1_000, "1m", "")
        rest = replace(FILE, path="spy.csv//2", rows=100, stored=90, rejected=5)
        for file in (FILE, rest):
            rows = revisions(("revised", file.rows, 1.0, 2.0), path=file.path)
            rejected = rejects((file.rows, "nan", ""), path=file.path)
            ledger.record_files(import_id, [file], rows, rejected)
            if file is FILE:
                ledger.seal_files(import_id, [FILE.path])
        (row,) = ledger.imports()
        assert (row.files, row.pending, row.rows) == (1, 1, FILE.rows)
        ledger.seal_files(import_id, [rest.path], {rest.path: FILE.path})
        (row,) = ledger.imports()
        assert (row.files, row.pending) == (1, 0)
        assert (row.rows, row.stored) == (FILE.rows + 100, FILE.stored + 90)
        assert row.rejected == FILE.rejected + 5
        assert ledger.rejects().select("path", "row").rows() == [
            ("spy.csv", FILE.rows),
            ("spy.csv", 100),
        ]
        assert ledger.revisions().select("path", "sealed").rows() == [("spy.csv", True)] * 2
        with pytest.raises(LedgerError, match="no record of the file 'b'"):
            ledger.seal_files(import_id, [FILE.path], {FILE.path: "b"})

    def test_files_nobody_recorded_are_an_error(self, ledger: Ledger) -> None:
        import_id = ledger.begin_import(1_000, "1m", "")
        with pytest.raises(LedgerError, match=r"no record of the file 'x\.csv'"):
            ledger.seal_files(import_id, ["x.csv"])
        with pytest.raises(LedgerError, match=r"no record of the file 'x\.csv'"):
            ledger.record_files(
                import_id, [FILE], NO_REVISIONS, rejects((1, "nan", ""), path="x.csv")
            )
        assert ledger.imports()[0].pending == 0

    def test_an_import_that_ended_takes_nothing_more(self, ledger: Ledger) -> None:
        import_id = import_file(ledger)
        with pytest.raises(LedgerError, match="done"):
            ledger.record_files(import_id, [FILE], NO_REVISIONS, NO_REJECTS)
        with pytest.raises(LedgerError, match="done"):
            ledger.seal_files(import_id, [FILE.path])
        with pytest.raises(LedgerError, match="done"):
            ledger.finish_import(import_id, 3_000, "failed")

    def test_a_revision_keeps_the_old_values(self, ledger: Ledger) -> None:
        frame = revisions(("revised", 60, 1.0, 2.0)).with_columns(
            old_high=pl.lit(9.5), volume=pl.lit(1e15 + 1), extra=pl.lit("ignored")
        )
        import_id = import_file(ledger, frame)
        assert ledger.revisions().to_dicts() == [
            {
                "import_id": import_id,
                "path": "spy.csv",
                "sealed": True,
                "interval": "1m",
                "kind": "revised",
                "symbol": "SPY",
                "start": 60,
                "old_open": 1.0,
                "old_high": 9.5,
                "old_low": 1.0,
                "old_close": 1.0,
                "old_volume": 1.0,
                "open": 2.0,
                "high": 2.0,
                "low": 2.0,
                "close": 2.0,
                "volume": 1e15 + 1,
            }
        ]

    def test_revisions_can_be_asked_for_by_symbol_and_time(self, ledger: Ledger) -> None:
        import_file(ledger, revisions(*(("revised", 60 * n, 1.0, 2.0) for n in range(5))))
        assert ledger.revisions("SPY", start=60, end=180)["start"].to_list() == [60, 120]
        assert ledger.revisions("SPY", limit=1)["start"].to_list() == [0]
        none = ledger.revisions("QQQ")
        assert none.is_empty()
        assert none.schema["old_open"] == pl.Float64

    def test_revisions_of_unsealed_files_are_marked_and_not_counted(self, ledger: Ledger) -> None:
        import_id = ledger.begin_import(1_000, "1m", "")
        ledger.record_files(
            import_id, [FILE], revisions(("revised", 60, 1.0, 2.0)), rejects((1, "nan", ""))
        )
        assert ledger.revisions()["sealed"].to_list() == [False]
        assert ledger.revision_counts() == {}
        assert ledger.reject_counts() == {}

    def test_a_superseded_row_is_recorded_once(self, ledger: Ledger) -> None:
        rows = revisions(("superseded", 60, 1.0, 2.0), ("superseded", 60, 1.0, 2.0))
        import_file(ledger, rows)
        import_file(ledger, rows)
        assert ledger.revision_counts() == {"superseded": 1}

    def test_other_superseded_rows_are_recorded(self, ledger: Ledger) -> None:
        import_file(ledger, revisions(("superseded", 60, 1.0, 2.0)))
        import_file(
            ledger,
            revisions(
                ("superseded", 60, 1.0, 3.0),  # another new value
                ("superseded", 60, 4.0, 2.0),  # another old value
                ("superseded", 120, 1.0, 2.0),  # another minute
                ("revised", 60, 1.0, 2.0),  # of another kind
            ),
        )
        assert ledger.revision_counts() == {"revised": 1, "superseded": 4}
        import_file(ledger, revisions(("superseded", 60, 1.0, 2.0)), interval="5m")
        assert ledger.revision_counts() == {"revised": 1, "superseded": 5}

    def test_a_superseded_row_of_a_failed_import_does_not_hide_the_next(
        self, ledger: Ledger
    ) -> None:
        failed = ledger.begin_import(1_000, "1m", "")
        rows = revisions(("superseded", 60, 1.0, 2.0))
        ledger.record_files(failed, [FILE], rows, NO_REJECTS)
        ledger.finish_import(failed, 2_000, "failed")
        import_file(ledger, rows)
        assert ledger.revision_counts() == {"superseded": 1}
        assert ledger.revisions()["sealed"].to_list() == [False, True]

    def test_rejects_keep_where_they_were(self, ledger: Ledger) -> None:
        frame = rejects((12, "high < low", "a,b"), (3, "nan", "nan,1")).with_columns(
            symbol=pl.lit("SPY"), start=pl.Series([None, 60])
        )
        import_id = import_file(ledger, rejected=frame)
        assert ledger.rejects().rows() == [
            (import_id, "spy.csv", 3, "SPY", 60, "nan", "nan,1"),
            (import_id, "spy.csv", 12, "SPY", None, "high < low", "a,b"),
        ]
        assert ledger.rejects(reason="nan")["row"].to_list() == [3]
        assert ledger.rejects(limit=1)["row"].to_list() == [3]

    def test_texts_are_ordered_by_their_bytes_in_any_database(self, ledger: Ledger) -> None:
        for path in ("b", "_", "C", "a.b", "aa", "é"):
            import_id = import_file(
                ledger,
                rejected=rejects((1, path, "")).with_columns(path=pl.lit(path)),
                file=replace(FILE, path=path),
            )
            assert ledger.rejects(import_id)["path"].to_list() == [path]
        assert list(ledger.reject_counts()) == ["C", "_", "a.b", "aa", "b", "é"]

    def test_rejects_of_a_file_imported_again_count_once(self, ledger: Ledger) -> None:
        first = import_file(
            ledger, rejected=rejects((1, "nan", ""), (2, "nan", ""), (3, "inf", ""))
        )
        import_file(ledger, rejected=rejects((1, "nan", "")))
        import_file(
            ledger, rejected=rejects((1, "inf", ""), path="b"), file=replace(FILE, path="b")
        )
        assert ledger.reject_counts() == {"inf": 1, "nan": 1}
        assert list(ledger.reject_counts(first).items()) == [("nan", 2), ("inf", 1)]
        assert ledger.rejects(first)["row"].to_list() == [1, 2, 3]

    def test_the_newest_import_of_a_file_is_the_one_that_began_last(self, ledger: Ledger) -> None:
        first, second = ledger.begin_import(1, "1m", ""), ledger.begin_import(2, "1m", "")
        for import_id, reason in ((second, "nan"), (first, "inf")):
            ledger.record_files(import_id, [FILE], NO_REVISIONS, rejects((1, reason, "")))
            ledger.seal_files(import_id, [FILE.path])
        assert ledger.reject_counts() == {"nan": 1}

    def test_the_text_of_a_reject_is_cut_and_made_storable(self, ledger: Ledger) -> None:
        import_file(ledger, rejected=rejects((1, "unparsable", "é\0" + "x" * 1_000)))
        (raw,) = ledger.rejects()["raw"]
        assert raw == r"é\x00" + "x" * 495

    def test_a_path_that_is_no_utf8_can_be_recorded_and_sealed(self, ledger: Ledger) -> None:
        import_file(ledger, file=replace(FILE, path="caf\udce9.csv"))
        assert ledger.imports()[0].files == 1

    def test_an_unknown_kind_is_refused(self, ledger: Ledger) -> None:
        import_id = ledger.begin_import(1_000, "1m", "")
        with pytest.raises(LedgerError):
            ledger.record_files(import_id, [FILE], revisions(("new", 60, 1.0, 2.0)), NO_REJECTS)
        assert ledger.imports()[0].pending == 0


class TestAddress:
    def test_a_relative_path_is_relative_to_the_root(self, tmp_path: Path) -> None:
        with open_ledger("sqlite:///a/b/l.db", tmp_path, create=True) as ledger:
            begin_run(ledger)
            assert ledger.url == "sqlite:///a/b/l.db"
            assert repr(ledger) == "Ledger('sqlite:///a/b/l.db')"
        with open_ledger(f"sqlite:///{tmp_path}/a/b/l.db", Path("/nowhere")) as ledger:
            assert len(ledger.runs()) == 1

    def test_odd_names_are_names(self, tmp_path: Path) -> None:
        root = tmp_path / "50% #1 caf\udce9"
        with open_ledger("sqlite:///a #b'c.db", root, create=True) as ledger:
            begin_run(ledger)
        assert (root / "a #b'c.db").stat().st_size > 0

    @pytest.mark.parametrize(
        "address",
        [
            "postgres://quant:hunter2@db.example/ledger",
            "postgresql+psycopg2://quant:hunter2@db.example/ledger",
            "postgresql://quant:hunter2@db.example",
            "postgresql://quant@db.example/ledger?password=hunter2",
            "postgresql://quant:hunter2/ledger",
            "postgresql://quant:hunter2@db.example:port/ledger",
            "mysql+pymysql://quant:hunter2@db.example/ledger?password=hunter2",
            "sqlite+aiosqlite:///hunter2.db",
            "sqlite://quant:hunter2@host/ledger.db",
            "sqlite:///ledger.db?key=hunter2",
            "sqlite://",
            "sqlite:///:memory:",
            "hunter2",
            "",
        ],
    )
    def test_other_addresses_are_refused_without_secrets(
        self, tmp_path: Path, address: str
    ) -> None:
        with pytest.raises(ConfigError, match="sqlite:///") as caught:
            open_ledger(address, tmp_path, create=True)
        assert "hunter2" not in str(caught.value)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("password", ["hunter2@x", "x@hunter2", "x@y/hunter2", "x@?hunter2"])
    def test_a_password_with_an_at_sign_is_not_taken_for_a_host(self, password: str) -> None:
        with pytest.raises(ConfigError, match="%40") as caught:
            open_ledger(f"postgresql://quant:{password}@db.example/ledger", Path("/"))
        assert "hunter2" not in str(caught.value)

    def test_a_near_miss_is_named(self) -> None:
        with pytest.raises(ConfigError, match=r"did you mean 'postgresql'\?"):
            open_ledger("postgres://db.example/ledger", Path("/"))

    def test_a_missing_ledger_is_an_error_that_names_the_command(self, tmp_path: Path) -> None:
        with pytest.raises(LedgerError, match="sc import"):
            open_ledger(URL, tmp_path)
        assert list(tmp_path.iterdir()) == []

    def test_opening_again_with_create_keeps_everything(self, tmp_path: Path) -> None:
        with open_ledger(URL, tmp_path, create=True) as ledger:
            begin_run(ledger)
        with open_ledger(URL, tmp_path, create=True) as ledger:
            assert len(ledger.runs()) == 1

    def test_commits_reach_the_disk_before_a_call_returns(self, tmp_path: Path) -> None:
        with open_ledger(URL, tmp_path, create=True) as ledger, ledger._writing() as connection:
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
            assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1

    def test_importing_the_module_imports_no_heavy_library(self) -> None:
        code = (
            "import sys, stream_coord.stores.ledger as _\n"
            "print({'sqlalchemy', 'polars', 'numpy', 'pandas', 'deltalake'} & set(sys.modules))"
        )
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
        assert out.stdout == b"set()\n"


def execute(url: str, *statements: str) -> list[tuple[object, ...]]:
    """Execute SQL behind the ledger's back, and return the rows of the last statement."""
    engine = sa.create_engine(url)
    try:
        with engine.begin() as connection:
            for statement in statements:
                result = connection.execute(sa.text(statement))
            return [tuple(row) for row in result] if result.returns_rows else []
    finally:
        engine.dispose()


def contents(url: str) -> list[object]:
    """Return the tables of a database with their columns and rows."""
    engine = sa.create_engine(url)
    metadata = sa.MetaData()
    try:
        metadata.reflect(engine)
        with engine.connect() as connection:
            return [
                (table.name, table.columns.keys(), connection.execute(table.select()).all())
                for table in metadata.sorted_tables
            ]
    finally:
        engine.dispose()


@pytest.fixture
def made(url: str, tmp_path: Path) -> str:
    """Return the address of a ledger with one run in it."""
    with open_ledger(url, tmp_path, create=True) as ledger:
        begin_run(ledger)
    return url


class TestVersion:
    @staticmethod
    def add_colour(connection: sa.Connection) -> None:
        connection.execute(sa.text("ALTER TABLE runs ADD COLUMN colour TEXT DEFAULT 'red'"))

    def test_a_new_ledger_says_its_version(self, made: str) -> None:
        assert execute(made, "SELECT part, version FROM schema_version") == [("ledger", 3)]

    @pytest.mark.parametrize("create", [False, True])
    def test_a_newer_ledger_is_left_alone(self, made: str, create: bool) -> None:
        execute(made, "UPDATE schema_version SET version = 7")
        with pytest.raises(LedgerError, match=r"version 7; this program knows 3\n.*newer"):
            open_ledger(made, Path("/"), create=create)
        assert execute(made, "SELECT version FROM schema_version") == [(7,)]

    def test_an_older_ledger_is_migrated(self, made: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ledger_schema, "VERSION", 5)
        steps = {3: self.add_colour, 4: lambda c: c.execute(sa.text("UPDATE runs SET bars = 5"))}
        monkeypatch.setattr(ledger_schema, "MIGRATIONS", steps)
        for _ in range(2):
            with open_ledger(made, Path("/")) as ledger:
                assert [run.bars for run in ledger.runs()] == [5]
        assert execute(made, "SELECT version FROM schema_version") == [(5,)]
        assert execute(made, "SELECT colour FROM runs") == [("red",)]

    def test_a_migration_that_fails_changes_nothing(
        self, made: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ledger_schema, "VERSION", 5)
        steps = {3: self.add_colour, 4: lambda c: c.execute(sa.text("DROP TABLE absent"))}
        monkeypatch.setattr(ledger_schema, "MIGRATIONS", steps)
        before = contents(made)
        with pytest.raises(LedgerError, match="absent"):
            open_ledger(made, Path("/"))
        assert contents(made) == before

    def test_a_version_nobody_can_migrate_is_an_error(self, made: str) -> None:
        execute(made, "UPDATE schema_version SET version = 0")
        with pytest.raises(LedgerError, match="version 0, which cannot be migrated"):
            open_ledger(made, Path("/"))

    @pytest.mark.parametrize(
        "table",
        [
            "runs (id INTEGER)",
            "schema_version (version INTEGER)",
            "schema_version (part INTEGER)",
        ],
    )
    @pytest.mark.parametrize("create", [False, True])
    def test_tables_of_another_program_are_left_alone(
        self, url: str, table: str, create: bool
    ) -> None:
        execute(url, f"CREATE TABLE {table}", "CREATE TABLE notes (text TEXT)")
        before = contents(url)
        with pytest.raises(LedgerError, match=f"another program .{table.split(maxsplit=1)[0]}"):
            open_ledger(url, Path("/"), create=create)
        assert contents(url) == before

    def test_tables_of_another_shape_are_named(self, made: str) -> None:
        execute(made, "ALTER TABLE runs RENAME COLUMN bars TO candles")
        with pytest.raises(LedgerError, match="another shape: runs is without bars"):
            open_ledger(made, Path("/"), create=True)

    def test_a_version_that_is_no_number_is_another_programs(self, url: str) -> None:
        execute(
            url,
            "CREATE TABLE schema_version (part TEXT, version TEXT)",
            "CREATE TABLE runs (id INTEGER)",
            "INSERT INTO schema_version VALUES ('ledger', 'one')",
        )
        with pytest.raises(LedgerError, match="another program"):
            open_ledger(url, Path("/"))

    def test_a_ledger_can_be_made_beside_other_tables(self, url: str) -> None:
        execute(url, "CREATE TABLE notes (text TEXT)", "INSERT INTO notes VALUES ('mine')")
        with pytest.raises(LedgerError, match="sc import"):
            open_ledger(url, Path("/"))
        with open_ledger(url, Path("/"), create=True) as ledger:
            begin_run(ledger)
        assert execute(url, "SELECT text FROM notes") == [("mine",)]

    def test_another_part_in_the_same_database_has_its_own_version(self, made: str) -> None:
        metadata = sa.MetaData()
        sa.Table("bars", metadata, sa.Column("symbol", sa.Text()))
        schema = Schema("bars", 4, metadata)
        with closing(
            open_database(made, Path("/"), create=False, subject="store", error=StoreError)
        ) as database:
            with pytest.raises(StoreError, match=r"there is no store at"):
                prepare(database, schema, create=False)
            prepare(database, schema, create=True)
            prepare(database, schema, create=False)
        versions = execute(made, "SELECT part, version FROM schema_version ORDER BY part")
        assert versions == [("bars", 4), ("ledger", 3)]
        with open_ledger(made, Path("/")) as ledger:
            assert len(ledger.runs()) == 1
