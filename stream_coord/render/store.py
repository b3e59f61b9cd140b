"""What the commands of `sc store` print."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from stream_coord.copying import Copied
from stream_coord.render.quality import new_table
from stream_coord.render.text import plural, printable, seconds
from stream_coord.stores.base import Compaction
from stream_coord.storing import Damage, StoreInfo, SymbolDay, Verification

_KINDS = {"delta": "Delta Lake", "sqlite": "SQLite", "postgresql": "PostgreSQL"}


def info_json(info: StoreInfo) -> dict[str, object]:
    """Return the document of what a store holds."""
    return {
        "url": info.url,
        "kind": info.kind,
        "bytes": info.compaction.bytes_before,
        "files": info.compaction.files_before,
        "intervals": [
            {
                "interval": str(found.interval),
                "symbols": found.symbols,
                "dates": found.dates,
                "first": found.first,
                "last": found.last,
                "rows": found.rows,
            }
            for found in info.intervals
        ],
    }


def info_text(info: StoreInfo) -> RenderableType:
    """Return what a store holds, for people."""
    lines = [Text(f"{printable(info.url)} ({_KINDS.get(info.kind, info.kind)})", style="bold")]
    compaction = info.compaction
    if compaction.bytes_before is not None:
        lines.append(Text(_size(compaction.bytes_before, compaction.files_before) + "."))
    if (compaction.files_after or 0) < (compaction.files_before or 0):
        lines.append(
            Text(f"`sc store compact` would make {plural(compaction.files_after or 0, 'file')}.")
        )
    if not info.intervals:
        return Group(*lines, Text("It holds no bars: import some with `sc import`."))
    columns = ("Interval", "Symbols", "Dates", "First (UTC)", "Last (UTC)", "Bars")
    table = new_table(*columns, right=("Symbols", "Dates", "Bars"))
    for found in info.intervals:
        table.add_row(
            str(found.interval),
            f"{found.symbols:,}",
            f"{found.dates:,}",
            str(found.first),
            str(found.last),
            f"{found.rows:,}",
        )
    return Group(*lines, Text(), table)


def verification_json(found: Verification) -> dict[str, object]:
    """Return the document of a verification."""
    return {
        "symbol_days": found.symbol_days,
        "rows": found.rows,
        "damaged": _damaged_json(found.damaged),
    }


def verification_text(found: Verification) -> RenderableType:
    """Return how much of a store is sound."""
    sound = f"{plural(found.rows, 'bar')} of {plural(found.symbol_days, 'symbol-day')} are sound."
    if not found.damaged:
        return Text(sound)
    advice = (
        "Restore the store from a backup; or copy what is sound into a new one with "
        "`sc store copy`, and import the damaged dates there."
    )
    return Group(Text(f"{sound} {len(found.damaged):,} damaged, see below."), Text(advice))


def damage_lines(damaged: Sequence[Damage]) -> list[str]:
    """Return a line for each symbol-day that is damaged."""
    return [f"{_named(damage.where)}: {damage.message}" for damage in damaged]


def compaction_json(done: Compaction, *, dry_run: bool) -> dict[str, object]:
    """Return the document of a compaction."""
    return {
        "dry_run": dry_run,
        "files_before": done.files_before,
        "files_after": done.files_after,
        "bytes_before": done.bytes_before,
        "bytes_after": done.bytes_after,
        "deleted_files": done.deleted_files,
        "deleted_bytes": done.deleted_bytes,
        "notes": done.notes,
    }


def compaction_text(done: Compaction, *, dry_run: bool) -> RenderableType:
    """Return what a compaction did or would do."""
    before = _size(done.bytes_before, done.files_before)
    after = _size(done.bytes_after, done.files_after)
    deleted = _size(done.deleted_bytes, done.deleted_files)
    verb = "It would make" if dry_run else "Made"
    if (done.files_before, done.bytes_before) == (done.files_after, done.bytes_after):
        lines = [f"Nothing to gain: the bars are in {before}."]
    elif (done.files_after, done.bytes_after) == (None, None):
        lines = [f"The bars take {before}; only doing it shows what a compaction gains."]
    else:
        lines = [f"{verb} {after} of {before}."]
    if done.deleted_files:
        verb = "It would delete" if dry_run else "Deleted"
        lines.append(f"{verb} {deleted} that nobody needs any more.")
    return Group(*(Text(printable(line)) for line in (*lines, *done.notes)))


def copied_json(done: Copied, taken_seconds: float, *, dry_run: bool) -> dict[str, object]:
    """Return the document of a copy."""
    return {
        "dry_run": dry_run,
        "symbol_days": done.symbol_days,
        "copied": done.copied,
        "skipped": done.skipped,
        "rows": done.rows,
        "stored": done.stored,
        "duplicates": done.duplicates,
        "revised": done.revised,
        "differing": [_where_json(where) for where in done.differing],
        "damaged": _damaged_json(done.damaged),
        "seconds": taken_seconds,
    }


def copied_text(done: Copied, taken_seconds: float, *, dry_run: bool) -> RenderableType:
    """Return what a copy did or would do."""
    of = f"of {plural(done.symbol_days, 'symbol-day')}"
    if dry_run:
        return Text(f"It would copy {done.copied:,} {of}; the others are equal.")
    if done.skipped == done.symbol_days and not done.rows:
        return Text(f"Nothing to copy: all {plural(done.symbol_days, 'symbol-day')} are equal.")
    head = Text(f"Copied {done.copied:,} {of} in {seconds(taken_seconds)}.")
    if not done.rows:
        return head
    table = new_table("", "Bars", "", right=("Bars",))
    table.add_row("stored", f"{done.stored:,}", "")
    table.add_row("duplicates", f"{done.duplicates:,}", "")
    revised = "other values that the target held are replaced" if done.revised else ""
    table.add_row("revised", f"{done.revised:,}", Text(revised, style="dim"))
    table.add_row("bars", f"{done.rows:,}", "", style="bold")
    return Group(head, table)


def copied_failures(done: Copied) -> list[str]:
    """Return a line for each symbol-day of which the target is no copy."""
    left_out = [f"{line} (left out)" for line in damage_lines(done.damaged)]
    why = "the target holds other bars there, which the source has not; they stay"
    return [*left_out, *(f"{_named(where)} differs: {why}" for where in done.differing)]


def _damaged_json(damaged: Sequence[Damage]) -> list[dict[str, object]]:
    return [_where_json(damage.where) | {"message": damage.message} for damage in damaged]


def _where_json(where: SymbolDay) -> dict[str, object]:
    return {"interval": str(where.interval), "date": where.date, "symbol": where.symbol}


def _named(where: SymbolDay) -> str:
    return f"{where.interval} {where.date} {where.symbol or '(all symbols)'}"


def _size(size_bytes: int | None, files: int | None) -> str:
    """Return how much something is, as far as that is known.

    >>> _size(1_234_567, 3), _size(None, 1), _size(512, None)
    ('3 files (1.2 MB)', '1 file', '512 bytes')
    """
    size = None if size_bytes is None else _bytes(size_bytes)
    if files is None:
        return size or "an unknown size"
    return plural(files, "file") + (f" ({size})" if size else "")


def _bytes(count: int) -> str:
    if count < 1000:
        return f"{count} bytes"
    value = float(count)
    for unit in ("kB", "MB", "GB", "TB"):
        value /= 1000
        if value < 1000 or unit == "TB":
            break
    return f"{value:.1f} {unit}"
