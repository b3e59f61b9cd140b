"""The ledger's pages on imports: files, and the rows that were revised or rejected."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from stream_coord.errors import LedgerError
from stream_coord.stores.ledger.base import LedgerBase, Outcome, execute_many, running
from stream_coord.stores.ledger.schema import COUNTS, REVISION, storable, tables

if TYPE_CHECKING:
    import polars as pl
    import sqlalchemy as sa

_SLICE = 20_000  # rows that are Python objects, or values that are in a statement, at a time
_REJECT = ("row", "symbol", "start", "reason", "raw")
_REVISION = ("kind", *REVISION)


@dataclass(frozen=True)
class FileRecord:
    """One imported file, and what became of its rows.

    Attributes:
        path: The file.
        format: How it was read.
        rows: Rows in it.
        stored: Rows with a new key.
        duplicates: Rows equal to what was stored.
        superseded: Rows that a later row of the same import and key replaced.
        revised: Rows that replaced other values of a stored key.
        rejected: Rows that are no bars.
        out_of_session: Rows outside the regular session; the other counts hold them too.
    """

    path: str
    format: str
    rows: int
    stored: int
    duplicates: int
    superseded: int
    revised: int
    rejected: int
    out_of_session: int

    def plus(self, more: FileRecord) -> FileRecord:
        """Return this record with the counts of another added."""
        sums = {name: getattr(self, name) + getattr(more, name) for name in COUNTS}
        return replace(self, **sums)


@dataclass(frozen=True)
class ImportRow:
    """One import; the counts add up those of its sealed files (see `FileRecord`).

    Attributes:
        id: What `Ledger.begin_import` returned.
        started: UTC microseconds.
        finished: UTC microseconds; None while it runs, and for ever if it was killed.
        status: ``running``, ``done``, ``failed`` or ``interrupted``.
        interval: The bars' interval.
        settings: How the files were read.
        files: Files sealed.
        pending: Files recorded whose commit to the store is not known to have happened.
    """

    id: int
    started: int
    finished: int | None
    status: str
    interval: str
    settings: str
    files: int
    pending: int
    rows: int
    stored: int
    duplicates: int
    superseded: int
    revised: int
    rejected: int
    out_of_session: int


class ImportLedger(LedgerBase):
    """What was imported, and what became of every row."""

    def begin_import(self, now: int, interval: str, settings: str) -> int:
        """Record that an import begins, and return its id.

        Args:
            now: UTC microseconds.
            interval: The bars' interval.
            settings: How files are read; holds no secret.
        """
        values = {"started": now, "interval": interval, "settings": settings}
        return self._begin(tables().imports, values)

    def record_files(
        self,
        import_id: int,
        files: Sequence[FileRecord],
        revisions: pl.DataFrame,
        rejects: pl.DataFrame,
    ) -> None:
        """Record what is about to become of some files; pending until `seal_files`.

        What an earlier attempt wrote for the same files of this import is replaced. A superseded
        row equal to one of a sealed file is not added again, so that importing the same file
        twice adds none.

        Args:
            import_id: A running import.
            files: The files; none of them sealed by this import.
            revisions: Columns ``path, kind`` (``revised`` or ``superseded``), ``symbol, start,
                old_open`` ... ``old_volume, open`` ... ``volume``; the values are finite.
            rejects: Columns ``path, row, symbol, start, reason, raw``; ``symbol``, ``start`` and
                ``raw`` may be null. The first `RAW_CHARACTERS` of ``raw`` are kept.
        """
        t = tables()
        revised, superseded = _by_kind(revisions)
        with self._writing() as connection:
            interval = running(connection, t.imports, import_id)["interval"]
            ids = _replace_files(connection, import_id, files)
            _add_rows(connection, t.rejects.insert(), rejects, _REJECT, ids)
            _add_rows(connection, t.revisions.insert(), revised, _REVISION, ids)
            _add_rows(connection, _insert_unless_known(interval), superseded, _REVISION, ids)

    def seal_files(
        self, import_id: int, paths: Iterable[str], onto: Mapping[str, str] | None = None
    ) -> None:
        """Record that the store has committed these files; twice is as good as once.

        Args:
            import_id: A running import.
            paths: Files that it has recorded.
            onto: Those of them that are the rest of a file which is sealed already, with the path
                of that file: they become part of it, and are no files of their own any more.
        """
        import sqlalchemy as sa

        paths, onto = list(paths), onto or {}
        files = tables().import_files
        seal = files.update().where(files.c.id == sa.bindparam("file")).values(sealed=True)
        with self._writing() as connection:
            running(connection, tables().imports, import_id)
            found = _recorded(connection, import_id, [*paths, *onto.values()])
            ids = {path: id_ for path, (id_, _) in found.items()}
            whole = [{"file": _file_id(ids, path)} for path in paths if path not in onto]
            execute_many(connection, seal, whole)
            _join_files(connection, [(_file_id(ids, a), _file_id(ids, b)) for a, b in onto.items()])

    def finish_import(self, import_id: int, now: int, status: Outcome) -> None:
        """Record how a running import ended, at `now` in UTC microseconds."""
        self._finish(tables().imports, import_id, {"finished": now, "status": status})

    def imports(self, limit: int | None = None) -> list[ImportRow]:
        """Return the imports, newest first, at most `limit` of them."""
        import sqlalchemy as sa

        imports, files = tables().imports, tables().import_files

        def total(values: sa.ColumnElement[int], name: str) -> sa.Label[int]:
            return sa.cast(sa.func.coalesce(sa.func.sum(values), 0), sa.BigInteger).label(name)

        statement = (
            sa.select(
                imports,
                total(sa.case((files.c.sealed, 1), else_=0), "files"),
                total(sa.case((sa.not_(files.c.sealed), 1), else_=0), "pending"),
                *(
                    total(sa.case((files.c.sealed, files.c[name]), else_=0), name)
                    for name in COUNTS
                ),
            )
            .outerjoin_from(imports, files)
            .group_by(imports.c.id)
            .order_by(imports.c.id.desc())
            .limit(limit)
        )
        with self._reading() as connection:
            return [ImportRow(**row) for row in connection.execute(statement).mappings()]

    def rejects(
        self, import_id: int | None = None, *, reason: str | None = None, limit: int | None = None
    ) -> pl.DataFrame:
        """Return rejected rows of sealed files, by import, path and row.

        Args:
            import_id: Of this import. None: each file's as of its newest import, so that importing
                a file again does not count its rejects twice.
            reason: With this reason only.
            limit: At most so many.

        Returns:
            Columns ``import_id`` (Int64), ``path`` (String), ``row`` (Int64), ``symbol`` (String),
            ``start`` (Int64), ``reason``, ``raw`` (String).
        """
        import sqlalchemy as sa

        files, rejects = tables().import_files, tables().rejects
        statement = (
            sa.select(files.c.import_id, files.c.path, *(rejects.c[name] for name in _REJECT))
            .join_from(rejects, files)
            .where(_current(import_id))
            .order_by(files.c.import_id, files.c.path, rejects.c.row)
            .limit(limit)
        )
        if reason is not None:
            statement = statement.where(rejects.c.reason == reason)
        return self._frame(statement)

    def reject_counts(self, import_id: int | None = None) -> dict[str, int]:
        """Return how many rows were rejected for each reason, most first.

        Args:
            import_id: As for `rejects`.
        """
        import sqlalchemy as sa

        files, rejects = tables().import_files, tables().rejects
        rows = sa.func.count()
        statement = (
            sa.select(rejects.c.reason, rows)
            .join_from(rejects, files)
            .where(_current(import_id))
            .group_by(rejects.c.reason)
            .order_by(rows.desc(), rejects.c.reason)
        )
        return self._counts(statement)

    def revisions(
        self,
        symbol: str | None = None,
        *,
        start: int | None = None,
        end: int | None = None,
        limit: int | None = None,
    ) -> pl.DataFrame:
        """Return the revisions of bars with ``start <= bar start < end``.

        Args:
            symbol: Of this symbol; None for all.
            start: UTC microseconds; None for no bound.
            end: UTC microseconds, exclusive; None for no bound.
            limit: At most so many.

        Returns:
            By symbol, start and import: ``import_id`` (Int64), ``path`` (String), ``sealed``
            (Boolean; not sealed: the store's commit is not known to have happened), ``interval``,
            ``kind``, ``symbol`` (String), ``start`` (Int64), ``old_open`` ... ``old_volume``,
            ``open`` ... ``volume`` (Float64).
        """
        import sqlalchemy as sa

        t = tables()
        files, bars = t.import_files.c, t.revisions.c
        statement = (
            sa.select(
                *(files.import_id, files.path, files.sealed, t.imports.c.interval),
                *(bars[name] for name in _REVISION),
            )
            .select_from(t.revisions.join(t.import_files).join(t.imports))
            .order_by(bars.symbol, bars.start, files.import_id, bars.kind)
            .limit(limit)
        )
        bounds = (
            None if symbol is None else bars.symbol == symbol,
            None if start is None else bars.start >= start,
            None if end is None else bars.start < end,
        )
        return self._frame(statement.where(*(bound for bound in bounds if bound is not None)))

    def revision_counts(self) -> dict[str, int]:
        """Return how many revisions sealed files brought, by kind."""
        import sqlalchemy as sa

        files, revisions = tables().import_files, tables().revisions
        statement = (
            sa.select(revisions.c.kind, sa.func.count())
            .join_from(revisions, files)
            .where(files.c.sealed)
            .group_by(revisions.c.kind)
            .order_by(revisions.c.kind)
        )
        return self._counts(statement)

    def _frame(self, statement: sa.Select[*tuple[object, ...]]) -> pl.DataFrame:
        import polars as pl

        whole = dict.fromkeys(("import_id", "row", "start"), pl.Int64)
        types = {**whole, "sealed": pl.Boolean, **dict.fromkeys(REVISION[2:], pl.Float64)}
        names = [column.name for column in statement.selected_columns]
        schema = {name: types.get(name, pl.String) for name in names}
        with self._reading() as connection:
            rows = [tuple(row) for row in connection.execute(statement)]
            try:
                return pl.DataFrame(rows, schema=schema, orient="row")
            except pl.exceptions.PolarsError as error:
                raise TypeError(error) from error


def _by_kind(revisions: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the revised rows, and the superseded ones without repeats."""
    import polars as pl

    if revisions.is_empty():
        return revisions, revisions
    superseded = pl.col("kind") == "superseded"
    return revisions.filter(~superseded), revisions.filter(superseded).unique(
        REVISION, keep="first", maintain_order=True
    )


def _replace_files(
    connection: sa.Connection, import_id: int, files: Sequence[FileRecord]
) -> dict[str, int]:
    """Forget what an attempt before this one wrote, add the files, and return their ids by path."""
    import sqlalchemy as sa

    table = tables().import_files
    paths = [file.path for file in files]
    earlier = _recorded(connection, import_id, paths)
    for path, (_, sealed) in earlier.items():
        if sealed:
            raise LedgerError(f"import {import_id} has sealed the file {path!r} already")
    forget = table.delete().where(table.c.id == sa.bindparam("file"))  # and its rows with it
    execute_many(connection, forget, [{"file": id_} for id_, _ in earlier.values()])
    rows = [{**asdict(file), "import_id": import_id, "sealed": False} for file in files]
    execute_many(connection, table.insert(), rows)
    return {path: id_ for path, (id_, _) in _recorded(connection, import_id, paths).items()}


def _join_files(connection: sa.Connection, pairs: Sequence[tuple[int, int]]) -> None:
    """Add the counts and rows of the first file of each pair to the second."""
    import sqlalchemy as sa

    t = tables()
    part = sa.bindparam("part", type_=sa.Integer())
    whole = sa.bindparam("whole", type_=sa.Integer())
    files, ids = t.import_files, [{"part": a, "whole": b} for a, b in pairs]
    other = files.alias()
    sums = {
        name: files.c[name] + sa.select(other.c[name]).where(other.c.id == part).scalar_subquery()
        for name in COUNTS
    }
    execute_many(connection, files.update().where(files.c.id == whole).values(sums), ids)
    for rows in (t.revisions, t.rejects):
        moved = rows.update().where(rows.c.file_id == part).values(file_id=whole)
        execute_many(connection, moved, ids)
    execute_many(connection, files.delete().where(files.c.id == part), ids)


def _recorded(
    connection: sa.Connection, import_id: int, paths: Sequence[str]
) -> dict[str, tuple[int, bool]]:
    """Return the id of each of `paths` that the import has recorded, and whether it is sealed."""
    import sqlalchemy as sa

    files = tables().import_files
    found: dict[str, tuple[int, bool]] = {}
    for at in range(0, len(paths), _SLICE):  # databases bound the values of one statement
        statement = sa.select(files.c.path, files.c.id, files.c.sealed).where(
            files.c.import_id == import_id, files.c.path.in_(paths[at : at + _SLICE])
        )
        found |= {path: (id_, sealed) for path, id_, sealed in connection.execute(statement)}
    return found


def _file_id(ids: Mapping[str, int], path: str) -> int:
    if storable(path) not in ids:
        raise LedgerError(f"the import has no record of the file {path!r}")
    return ids[storable(path)]


def _add_rows(
    connection: sa.Connection,
    statement: sa.Insert,
    frame: pl.DataFrame,
    names: Sequence[str],
    ids: Mapping[str, int],
) -> None:
    """Add the rows of a frame, with the id of their file for its path."""
    for part in frame.iter_slices(_SLICE):
        rows = part.select("path", *names).to_dicts()
        for row in rows:
            row["file_id"] = _file_id(ids, row.pop("path"))
        execute_many(connection, statement, rows)


def _insert_unless_known(interval: str) -> sa.Insert:
    """Return the insert of a superseded row, unless a sealed file of this interval has its like."""
    import sqlalchemy as sa

    t = tables()
    columns = t.revisions.c
    new = {name: sa.bindparam(name, type_=columns[name].type) for name in ("file_id", *_REVISION)}
    known = (
        sa.select(columns.file_id)
        .select_from(t.revisions.join(t.import_files).join(t.imports))
        .where(t.import_files.c.sealed, t.imports.c.interval == interval)
        .where(*(columns[name] == new[name] for name in _REVISION))
    )
    return t.revisions.insert().from_select(
        list(new), sa.select(*new.values()).where(~known.exists())
    )


def _current(import_id: int | None) -> sa.ColumnElement[bool]:
    """Return what picks the sealed files of one import, or each path's newest sealed file."""
    import sqlalchemy as sa

    files = tables().import_files
    if import_id is not None:
        return sa.and_(files.c.sealed, files.c.import_id == import_id)
    newest = sa.select(files.c.path, sa.func.max(files.c.import_id)).where(files.c.sealed)
    return sa.tuple_(files.c.path, files.c.import_id).in_(newest.group_by(files.c.path))
