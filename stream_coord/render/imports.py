"""What `sc import` prints."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from stream_coord.importing import ImportProgress, ImportSummary
from stream_coord.render.quality import heading, new_table
from stream_coord.render.text import plural, printable


def progress(at: ImportProgress, seconds: float) -> tuple[float, float, str]:
    """Return how much of how much is done after so many seconds, and what to say of it.

    A byte is half done when it has been read, and done when its rows are stored.
    """
    done = (at.bytes_read + at.bytes_stored) / 2
    rate = at.rows * done / max(at.bytes_read, 1) / max(seconds, 1e-9)
    files = f"file {min(at.files + 1, at.total_files):,} of {at.total_files:,}, "
    doing = "storing" if at.bytes_stored and at.bytes_read == at.total_bytes else "reading"
    text = f"{doing} {files if at.total_files > 1 else ''}{at.rows:,} rows, {rate:,.0f} rows/s"
    return done, at.total_bytes, text


def interrupted_text(kept: ImportSummary) -> str:
    """Return what to say of an import that was interrupted."""
    if not kept.files:
        return "Interrupted before any row was known to be stored; import the same files again."
    rows = plural(kept.rows - kept.rejected, "row")
    return (
        f"Interrupted: {rows} of {plural(len(kept.files), 'file')} are stored; "
        "import the same files again to complete it."
    )


def import_json(summary: ImportSummary) -> dict[str, object]:
    """Return the document of an import, with the keys that scripts rely on."""
    return {
        "rows": summary.rows,
        "stored": summary.stored,
        "duplicates": summary.duplicates,
        "superseded": summary.superseded,
        "revised": summary.revised,
        "rejected": summary.rejected,
        "out_of_session": summary.out_of_session,
        "rejects_by_reason": summary.rejects_by_reason,
        "files": summary.files,
        "failed": summary.failed,
    }


def import_text(summary: ImportSummary) -> RenderableType:
    """Return an import for people: the sum that accounts for every row, and what was rejected."""
    table = new_table("", "Rows", "", right=("Rows",))
    notes = {
        "stored": "",
        "duplicates": f"{summary.superseded:,} of other values than the row that won"
        if summary.superseded
        else "",
        "revised": "the old values are in the ledger" if summary.revised else "",
        "rejected": "",
    }
    for name, note in notes.items():
        table.add_row(name, f"{getattr(summary, name):,}", Text(note, style="dim"))
    table.add_row("rows", f"{summary.rows:,}", "", style="bold")
    parts: list[RenderableType] = [Text(f"Imported {plural(len(summary.files), 'file')}."), table]
    if summary.out_of_session:
        parts.append(
            Text(f"{plural(summary.out_of_session, 'bar')} outside the regular hours, stored too.")
        )
    if summary.rejected:
        parts += [Text(), _rejects_table(summary)]
    return Group(*parts)


def _rejects_table(summary: ImportSummary) -> RenderableType:
    table = new_table("Reason", "Rows", "For example", right=("Rows",))
    example = {reject.reason: reject for reject in reversed(summary.examples)}
    for reason, count in summary.rejects_by_reason.items():
        shown = example.get(reason)
        where = "" if shown is None else f"{shown.path}, row {shown.row}: {shown.raw}"
        table.add_row(reason, f"{count:,}", printable(where))
    return Group(heading("Rejected, kept in the ledger:"), table)
