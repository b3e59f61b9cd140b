"""The ledger in a SQLite file: read-only folders, other files, a full disk, damage."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from stream_coord.bars import FIELDS
from stream_coord.compute.quality import GapRow, QualityRow
from stream_coord.errors import LedgerError
from stream_coord.stores.ledger import (
    Disagreement,
    FileRecord,
    GapChange,
    Ledger,
    SessionRecord,
    SourceCall,
    open_ledger,
)
from stream_coord.stores.ledger import schema as ledger_schema

URL = "sqlite:///ledger.db"
NOBODY = 65534


def begin_run(ledger: Ledger) -> int:
    return ledger.begin_run(
        1,
        "replay",
        settings="",
        config_digest="",
        calendar="NYSE",
        calendar_version="5",
        store="delta:data/bars",
        program_version="0",
    )


def session(day: int, symbols: int = 3) -> SessionRecord:
    date = f"2018-11-{day:02}"
    return SessionRecord(
        session=date,
        open=0,
        close=60,
        digest="d",
        data_version="v",
        bars=1,
        derived_bars=0,
        updates=0,
        quality=[QualityRow(f"S{n}", date, 390, 389, 1) for n in range(symbols)],
        gaps=[GapRow(f"S{n}", date, 60, 120, 1, "missing") for n in range(symbols)],
    )


def write_some(ledger: Ledger) -> None:
    """Write something to every table."""
    run_id = begin_run(ledger)
    for day in (1, 2):
        ledger.record_session(run_id, session(day, 20))
    ledger.finish_run(
        run_id,
        2,
        "done",
        digest="d",
        sessions=2,
        bars=2,
        derived_bars=0,
        updates=0,
        timings={"total": 1.5},
    )
    write_gaps(ledger)
    import_id = ledger.begin_import(1, "1m", "")
    prices = {name: [1.5] * 40 for field in FIELDS for name in (field, f"old_{field}")}
    revisions = pl.DataFrame(
        {"path": ["a"] * 40, "kind": "revised", "symbol": "SPY", "start": range(40), **prices}
    )
    rejects = pl.DataFrame(
        {
            "path": ["a"] * 9,
            "row": range(9),
            "symbol": "SPY",
            "start": 1,
            "reason": "nan",
            "raw": "?",
        }
    )
    file = FileRecord("a", "csv", 49, 0, 0, 0, 40, 9, 0)
    ledger.record_files(import_id, [file], revisions, rejects)
    ledger.seal_files(import_id, ["a"])


def write_gaps(ledger: Ledger) -> None:
    run_id = begin_run(ledger)
    date, names = "2018-11-01", ("other: store", "web: http")
    change = GapChange(
        "1m",
        tuple((f"S{n}", date) for n in range(20)),
        tuple(
            GapRow(f"S{n}", date, 60, 120, 1, "no_trade", asked=names, empty=names)
            for n in range(20)
        ),
        tuple(Disagreement("SPY", n, *names, (1.5,) * 5, (2.5,) * 5) for n in range(20)),
    )
    ledger.record_calls(run_id, [SourceCall(names[0], 1, 0.5, 1, 2, 3, "failed", "no")] * 9)
    ledger.seal_gaps(run_id, change)
    ledger.pend_gaps(run_id, change)


def read_all(ledger: Ledger) -> list[object]:
    """Ask everything that a ledger can be asked."""
    answers: list[object] = [ledger.runs(), ledger.imports()]
    answers += [ledger.reject_counts(), ledger.revision_counts()]
    answers += [ledger.rejects().rows(), ledger.revisions().rows()]
    answers += [ledger.gap_states("1m", "2018-01-01", "2019-01-01"), ledger.pending_gaps()]
    answers += [ledger.disagreements(), ledger.source_calls()]
    for run in ledger.runs():
        answers += [ledger.run_sessions(run.id), ledger.run_quality(run.id)]
        answers += [ledger.run_gaps(run.id)]
    return answers


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with open_ledger(URL, tmp_path, create=True) as opened:
        yield opened


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a ledger with something in every table."""
    root = tmp_path_factory.mktemp("whole")
    with open_ledger(URL, root, create=True) as ledger:
        write_some(ledger)
    return (root / "ledger.db").read_bytes()


class TestReadOnly:
    """Root may write anything, so these go on as somebody else where root runs the tests."""

    @pytest.fixture
    def folder(self) -> Iterator[Path]:
        """A folder of an open name with a ledger in it."""
        folder = Path(tempfile.mkdtemp())
        folder.chmod(0o755)
        with open_ledger(URL, folder, create=True) as ledger:
            begin_run(ledger)
        yield folder
        folder.chmod(0o755)
        shutil.rmtree(folder)

    @staticmethod
    @contextmanager
    def read_only(*paths: Path) -> Iterator[None]:
        for path in paths:
            path.chmod(0o555 if path.is_dir() else 0o444)
        mine = os.geteuid()
        if mine == 0:
            os.seteuid(NOBODY)
        try:
            if not os.access(paths[0], os.R_OK, effective_ids=True):
                pytest.skip("the folder for temporary files is closed to other users")
            yield
        finally:
            os.seteuid(mine)

    @pytest.mark.parametrize("create", [False, True])
    def test_a_ledger_in_a_read_only_folder_can_be_read(self, folder: Path, create: bool) -> None:
        with (
            self.read_only(folder, folder / "ledger.db"),
            open_ledger(URL, folder, create=create) as ledger,
        ):
            assert len(ledger.runs()) == 1
            with pytest.raises(LedgerError, match="read-only"):
                begin_run(ledger)
            assert len(ledger.runs()) == 1

    def test_a_read_only_file_can_be_read(self, folder: Path) -> None:
        folder.chmod(0o777)
        with self.read_only(folder / "ledger.db"), open_ledger(URL, folder) as ledger:
            assert len(ledger.runs()) == 1
            with pytest.raises(LedgerError, match="read-only"):
                begin_run(ledger)

    def test_a_read_only_ledger_shows_what_its_writer_has_committed(self, folder: Path) -> None:
        with open_ledger(URL, folder) as writer:
            begin_run(writer)  # in the -wal file until the writer closes
            with self.read_only(folder), open_ledger(URL, folder) as ledger:
                assert len(ledger.runs()) == 2

    def test_a_read_only_copy_without_its_index_is_an_error_and_not_an_older_state(
        self, folder: Path
    ) -> None:
        copy = folder / "copy"
        copy.mkdir()
        with open_ledger(URL, folder) as writer:
            begin_run(writer)
            for name in ("ledger.db", "ledger.db-wal"):
                shutil.copy(folder / name, copy)
        (folder / "link.db").symlink_to(copy / "ledger.db")
        with self.read_only(copy):
            for path in (copy / "ledger.db", folder / "link.db"):  # the log is beside the file
                with pytest.raises(LedgerError, match="permissions"):
                    open_ledger(f"sqlite:///{path}", folder)
        copy.chmod(0o755)
        with open_ledger(URL, copy) as ledger:
            assert len(ledger.runs()) == 2

    def test_no_ledger_can_be_made_in_a_read_only_folder(self, folder: Path) -> None:
        with self.read_only(folder):
            with pytest.raises(LedgerError, match="permissions"):
                open_ledger("sqlite:///new.db", folder, create=True)
            with pytest.raises(LedgerError, match="Permission denied"):
                open_ledger("sqlite:///new/new.db", folder, create=True)

    def test_a_folder_that_cannot_be_entered_is_an_error(self, folder: Path) -> None:
        with self.read_only(folder / "ledger.db"):
            mine = os.geteuid()
            os.seteuid(os.getuid())
            folder.chmod(0o600)
            os.seteuid(mine)
            with pytest.raises(LedgerError, match="Permission denied"):
                open_ledger(URL, folder)

    def test_an_older_ledger_that_is_read_only_is_an_error(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ledger_schema, "VERSION", 4)
        monkeypatch.setattr(ledger_schema, "MIGRATIONS", {3: lambda _: None})
        with (
            self.read_only(folder, folder / "ledger.db"),
            pytest.raises(LedgerError, match="read-only"),
        ):
            open_ledger(URL, folder)


class TestNoLedger:
    @pytest.mark.parametrize("create", [False, True])
    def test_a_parent_that_is_a_file_is_an_error(self, tmp_path: Path, create: bool) -> None:
        (tmp_path / "data").write_text("a file")
        for url in ("sqlite:///data/ledger.db", "sqlite:///data/deeper/ledger.db"):
            with pytest.raises(LedgerError, match="ledger"):
                open_ledger(url, tmp_path, create=create)

    @pytest.mark.parametrize("create", [False, True])
    def test_a_folder_is_no_ledger(self, tmp_path: Path, create: bool) -> None:
        (tmp_path / "ledger.db").mkdir()
        with pytest.raises(LedgerError, match="is a folder"):
            open_ledger(URL, tmp_path, create=create)

    def test_messages_can_be_printed_whatever_the_name(self, tmp_path: Path) -> None:
        with pytest.raises(LedgerError) as caught:
            open_ledger(URL, tmp_path / "caf\udce9")
        assert r"caf\udce9/ledger.db" in str(caught.value)

    @pytest.mark.parametrize("name", ["x" * 300, "a\0b"])
    @pytest.mark.parametrize("create", [False, True])
    def test_an_impossible_name_is_an_error(self, tmp_path: Path, name: str, create: bool) -> None:
        with pytest.raises(LedgerError):
            open_ledger(f"sqlite:///{name}/{name}", tmp_path, create=create)

    @pytest.mark.parametrize("create", [False, True])
    @pytest.mark.parametrize("content", [b"no database at all " * 99, b"PAR1", b"\0" * 4096])
    def test_a_file_of_another_kind_is_left_alone(
        self, tmp_path: Path, content: bytes, create: bool
    ) -> None:
        path = tmp_path / "ledger.db"
        path.write_bytes(content)
        with pytest.raises(LedgerError, match="no SQLite database"):
            open_ledger(URL, tmp_path, create=create)
        assert path.read_bytes() == content

    def test_an_empty_file_becomes_a_ledger_only_if_asked(self, tmp_path: Path) -> None:
        (tmp_path / "ledger.db").touch()
        with pytest.raises(LedgerError, match="sc import"):
            open_ledger(URL, tmp_path)
        assert (tmp_path / "ledger.db").stat().st_size == 0
        with open_ledger(URL, tmp_path, create=True) as ledger:
            assert ledger.runs() == []

    def test_a_full_disk_is_an_error_and_loses_nothing(self, ledger: Ledger) -> None:
        run_id = begin_run(ledger)
        with ledger._reading() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(LedgerError, match="disk is full"):
            ledger.record_session(run_id, session(1, 5_000))
        assert ledger.run_sessions(run_id) == []
        assert len(ledger.runs()) == 1


class TestDamage:
    @staticmethod
    def flip(image: bytes, rng: np.random.Generator) -> bytes:
        damaged = bytearray(image)
        for at in rng.integers(len(image), size=rng.choice([1, 3, 20])):
            damaged[at] ^= 1 << int(rng.integers(8))
        return bytes(damaged)

    @staticmethod
    def cut(image: bytes, rng: np.random.Generator) -> bytes:
        return image[: rng.integers(1, len(image))]

    @staticmethod
    def overwrite(image: bytes, rng: np.random.Generator) -> bytes:
        at = rng.integers(len(image) - 4096)
        return image[:at] + rng.bytes(4096) + image[at + 4096 :]

    @pytest.mark.parametrize("harm", [flip, cut, overwrite])
    def test_damage_is_a_ledger_error_or_none(
        self, tmp_path: Path, image: bytes, harm: Callable[[bytes, np.random.Generator], bytes]
    ) -> None:
        rng = np.random.default_rng(20181123)
        errors = []
        for number in range(15):
            root = tmp_path / str(number)
            root.mkdir()
            (root / "ledger.db").write_bytes(harm(image, rng))
            try:
                with open_ledger(URL, root) as ledger:
                    read_all(ledger)
                    write_some(ledger)
            except LedgerError as error:
                errors.append(error.message)
        assert errors
        assert all("ledger.db" in message for message in errors)

    def test_a_table_that_is_gone_is_an_error(self, ledger: Ledger, tmp_path: Path) -> None:
        connection = sqlite3.connect(tmp_path / "ledger.db")
        connection.execute("DROP TABLE run_gaps")
        connection.close()
        with pytest.raises(LedgerError, match="no such table: run_gaps"):
            ledger.run_gaps(1)

    def test_values_of_another_kind_are_damage(self, ledger: Ledger, tmp_path: Path) -> None:
        write_some(ledger)
        connection = sqlite3.connect(tmp_path / "ledger.db")
        for statement in (
            "UPDATE runs SET timings = '{'",
            "UPDATE rejects SET start = x'ff'",
            "UPDATE revisions SET old_open = 'one'",
            "UPDATE gap_states SET asked = '[1]'",
            "UPDATE gap_pending SET change = substr(change, 1, 40)",
        ):
            connection.execute(statement)
        connection.commit()
        connection.close()
        states = partial(ledger.gap_states, "1m", "2018-11-01", "2018-11-01")
        for ask in (ledger.runs, ledger.rejects, ledger.revisions, states, ledger.pending_gaps):
            with pytest.raises(LedgerError, match="is damaged"):
                ask()
