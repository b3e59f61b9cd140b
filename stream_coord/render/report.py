"""What `sc report` prints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from rich.console import Group, RenderableType
from rich.text import Text

from stream_coord.calendars import Calendar, Session
from stream_coord.clock import format_moment
from stream_coord.compute.quality import GapRow, QualityRow
from stream_coord.interval import Interval
from stream_coord.render.quality import (
    gap_json,
    gaps_table,
    heading,
    new_table,
    quality_json,
    quality_table,
)
from stream_coord.render.text import percent, plural, printable
from stream_coord.session.quality import SessionQuality, tell_apart
from stream_coord.stores.ledger import ImportRow, Ledger, RunRow
from stream_coord.stores.ledger.splits import INTERVAL as SPLITS

_RUNS_SHOWN = 5


@dataclass
class Report:
    """What a report is made of.

    Attributes:
        calendar: The calendar of the sessions.
        sessions: The sessions asked for.
        symbols: The symbols asked for.
        rows: One row per expected symbol-session.
        gaps: All gaps, by session, symbol and time.
        remembered: What the ledger knows of gaps.
        runs: The ledger's runs, newest first.
        imports: The ledger's imports, newest first.
        rejects: Rejected rows by reason.
        revisions: Revisions by kind.
    """

    calendar: Calendar
    sessions: Sequence[Session]
    symbols: Sequence[str]
    rows: list[QualityRow] = field(default_factory=list)
    gaps: list[GapRow] = field(default_factory=list)
    remembered: Sequence[GapRow] = ()
    runs: list[RunRow] = field(default_factory=list)
    imports: list[ImportRow] = field(default_factory=list)
    rejects: dict[str, int] = field(default_factory=dict)
    revisions: dict[str, int] = field(default_factory=dict)
    sessions_read: int = 0

    def add(self, quality: SessionQuality) -> None:
        """Take what one session's bars are worth."""
        self.rows += quality.rows()
        self.gaps += quality.gaps()
        self.sessions_read += 1

    def tell_gaps_apart(self, first_bars: Mapping[str, int]) -> None:
        """Name those gaps that lie before their symbol's first stored bar.

        Args:
            first_bars: The start of each symbol's first stored bar, UTC microseconds.
        """
        self.gaps = list(tell_apart(self.gaps, first_bars))

    def add_history(self, ledger: Ledger, interval: Interval) -> None:
        """Take what the ledger knows.

        Args:
            ledger: The ledger.
            interval: That of the bars whose gaps it is asked for.
        """
        first, last = (self.sessions[at].date.isoformat() for at in (0, -1))
        self.remembered = ledger.gap_states(str(interval), first, last, self.symbols)
        self.runs = ledger.runs()
        self.imports = ledger.imports()
        self.rejects = ledger.reject_counts()
        self.revisions = ledger.revision_counts()


def report_json(report: Report) -> dict[str, object]:
    """Return the document of a report, with the keys that scripts rely on."""
    return {
        "calendar": report.calendar.name,
        "hours": report.calendar.hours,
        "sessions": [session.date.isoformat() for session in report.sessions],
        "symbols": list(report.symbols),
        "rows": [quality_json(row) for row in report.rows],
        "gaps": [gap_json(gap) for gap in report.gaps],
        "runs": report.runs,
        "imports": report.imports,
        "rejects": report.rejects,
        "revisions": report.revisions,
    }


def report_text(report: Report) -> RenderableType:
    """Return a report for people."""
    first, last = report.sessions[0].date, report.sessions[-1].date
    title = (
        f"{plural(len(report.sessions), 'session')} from {first} to {last}, "
        f"{plural(len(report.symbols), 'symbol')}, {report.calendar.name}, "
        f"{report.calendar.hours} hours"
    )
    return Group(
        Text(title, style="bold"),
        Text(),
        quality_table(report.rows),
        Text(),
        gaps_table(report.gaps, report.calendar.zone),
        Text(),
        _runs_table(report.runs),
        Text(),
        *_imports(report),
    )


def missed_threshold(rows: Iterable[QualityRow], fail_under: float, metric: str) -> list[str]:
    """Return a line for each symbol-session below a threshold; n/a passes."""
    return [
        f"{row.symbol} {row.session}: {metric} {percent(value)} is below {fail_under:g}"
        for row in rows
        if (value := getattr(row, metric)) is not None and value < fail_under
    ]


def _runs_table(runs: Sequence[RunRow]) -> RenderableType:
    if not runs:
        return Text("No run is recorded yet: run `sc replay`.")
    columns = ("Run", "Command", "Started (UTC)", "Status", "Sessions", "Bars", "Digest")
    table = new_table(*columns, right=("Sessions", "Bars"))
    for run in runs[:_RUNS_SHOWN]:
        table.add_row(
            str(run.id),
            printable(run.command),
            format_moment(run.started),
            run.status,
            f"{run.sessions or 0:,}",
            f"{run.bars or 0:,}",
            printable(run.digest or run.error or ""),
        )
    return Group(heading("Newest runs:"), table)


def _imports(report: Report) -> list[RenderableType]:
    imports = [done for done in report.imports if done.interval != SPLITS]
    rows, revised, superseded, rejected, pending = (
        sum(getattr(done, name) for done in imports)
        for name in ("rows", "revised", "superseded", "rejected", "pending")
    )
    summary = (
        f"{plural(len(imports), 'import')} of {plural(rows, 'row')}: {revised:,} revised "
        f"stored bars, {superseded:,} gave way within their import, {rejected:,} were rejected."
    )
    parts: list[RenderableType] = [heading(summary)]
    if pending:
        unsure = "an import ended before it was known whether they were stored; import them again"
        parts.append(Text(f"{plural(pending, 'file')} pending: {unsure}."))
    if not report.rejects:
        return parts
    parts.append(heading("Rejected rows, of each file's newest import:"))
    table = new_table("Reason", "Rows", right=("Rows",))
    for reason, count in report.rejects.items():
        table.add_row(reason, f"{count:,}")
    return [*parts, table]
