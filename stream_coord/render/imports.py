"""What `sc import` prints."""

from __future__ import annotations

from fractions import Fraction

from rich.console import Group, RenderableType
from rich.text import Text

from stream_coord.importing import ImportProgress, ImportSummary
from stream_coord.importing.actions import ActionSummary
from stream_coord.render.quality import heading, new_table
from stream_coord.render.text import plural, printable
from stream_coord.stores.ledger import SplitChange

_SHOWN = 20
"""Splits in a table before the rest is summed up in a line."""


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
    parts = [*_counts(summary, "values")]
    if summary.out_of_session:
        parts.append(
            Text(f"{plural(summary.out_of_session, 'bar')} outside the regular hours, stored too.")
        )
    return Group(*parts, *_rejects(summary))


def actions_json(summary: ActionSummary) -> dict[str, object]:
    """Return the document of an import of splits."""
    splits = [
        {
            "symbol": change.split.symbol,
            "date": change.split.day,
            "ratio": change.split.ratio,
            "fate": change.fate,
            "old_ratio": change.old_ratio,
        }
        for change in summary.splits
    ]
    return {"actions": True, **import_json(summary), "splits": splits}


def actions_text(summary: ActionSummary, shown: int = _SHOWN) -> RenderableType:
    """Return an import of splits for people: as for bars, and the splits, what is new first."""
    parts = [*_counts(summary, "ratios")]
    if summary.splits:
        table = new_table("Symbol", "Date", "New for old", "")
        known_last = sorted(summary.splits, key=lambda change: change.fate == "duplicates")
        for change in known_last[:shown]:
            split = change.split
            ratio = ratio_words(split.ratio)
            table.add_row(split.symbol, str(split.day), ratio, Text(_news(change), style="dim"))
        parts += [Text(), table]
        if len(known_last) > shown:
            parts.append(Text(f"... and {len(known_last) - shown:,} more; --json has them all."))
    return Group(*parts, *_rejects(summary))


def ratio_words(ratio: float) -> str:
    """Return a split's ratio as people say it, where they would.

    >>> ratio_words(7.0), ratio_words(1.5), ratio_words(0.1), ratio_words(1.0123)
    ('7:1', '3:2', '1:10', '1.0123:1')
    """
    near = Fraction(ratio).limit_denominator(10_000)
    if near.numerator / near.denominator == ratio and min(near.numerator, near.denominator) < 20:
        return f"{near.numerator}:{near.denominator}"
    return f"{ratio!r}:1"


def _news(change: SplitChange) -> str:
    if change.old_ratio is None:
        return "new"
    return "known" if change.fate == "duplicates" else f"was {ratio_words(change.old_ratio)}"


def _counts(summary: ImportSummary, values: str) -> list[RenderableType]:
    """Return how many files there were, and the sum that accounts for every row."""
    table = new_table("", "Rows", "", right=("Rows",))
    notes = {
        "stored": "",
        "duplicates": f"{summary.superseded:,} of other {values} than the row that won"
        if summary.superseded
        else "",
        "revised": f"the old {values} are in the ledger" if summary.revised else "",
        "rejected": "",
    }
    for name, note in notes.items():
        table.add_row(name, f"{getattr(summary, name):,}", Text(note, style="dim"))
    table.add_row("rows", f"{summary.rows:,}", "", style="bold")
    return [Text(f"Imported {plural(len(summary.files), 'file')}."), table]


def _rejects(summary: ImportSummary) -> list[RenderableType]:
    """Return what was rejected and why, with an example of each reason."""
    if not summary.rejected:
        return []
    table = new_table("Reason", "Rows", "For example", right=("Rows",))
    example = {reject.reason: reject for reject in reversed(summary.examples)}
    for reason, count in summary.rejects_by_reason.items():
        shown = example.get(reason)
        where = "" if shown is None else f"{shown.path}, row {shown.row}: {shown.raw}"
        table.add_row(reason, f"{count:,}", printable(where))
    return [Text(), heading("Rejected, kept in the ledger:"), table]
