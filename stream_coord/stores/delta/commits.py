"""Changing the files of some dates in one commit, whoever else commits meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from secrets import SystemRandom
from typing import TypeVar

from stream_coord.errors import StoreConflictError, StoreError
from stream_coord.stores.delta.files import BarFile, BarFiles
from stream_coord.stores.delta.log import DeltaLog, NewFile, Snapshot

_ATTEMPTS = 12
_WRITERS = 2

Day = tuple[str, date]
"""The name of an interval, and a UTC date."""


@dataclass(frozen=True, kw_only=True)
class DayChange:
    """What happens to the files of one date.

    Attributes:
        base: The date's live files that the change was planned for.
        added: New files, already written.
        removed: The live files that they replace.
    """

    base: tuple[BarFile, ...]
    added: tuple[NewFile, ...] = ()
    removed: tuple[BarFile, ...] = ()


Change = TypeVar("Change", bound=DayChange)


def commit_days(
    log: DeltaLog,
    files: BarFiles,
    days: Collection[Day],
    plan: Callable[[Day, tuple[BarFile, ...]], Change],
    sleep: Callable[[float], None],
    *,
    before_commit: Callable[[list[Change]], None] | None = None,
    data_change: bool = True,
) -> list[Change]:
    """Plan the change of each date and commit them all at once, or nothing if nothing changes.

    Where another writer was first, the dates that it wrote are planned anew.

    Args:
        log: The table's log.
        files: Takes back the new files of plans that do not come to be.
        days: The dates.
        plan: Writes the new files of a date that has these live files.
        sleep: Waits so many seconds before a commit is tried again.
        before_commit: Called with all plans before each attempt; what it raises stops the change.
        data_change: As in `DeltaLog.commit`.

    Returns:
        The plans that were committed, in the order of `days`.

    Raises:
        StoreConflictError: other writers committed first, time and again.
    """
    plans: dict[Day, Change] = {}
    try:
        for pause_seconds in _pauses():
            snapshot = log.snapshot()
            _keep_all_up(plans, days, snapshot, plan, files)
            changes = [plans[day] for day in days]
            if before_commit is not None:
                before_commit(changes)
            added = [new for change in changes for new in change.added]
            removed = [file for change in changes for file in change.removed]
            if not added or log.commit(snapshot, added, removed, data_change=data_change):
                return changes
            sleep(pause_seconds)
        raise StoreConflictError(
            f"other writers of {log.url} committed first {_ATTEMPTS} times",
            "Nothing was stored; run it again when they are done.",
        )
    except BaseException:
        _discard_uncommitted(log, files, {n.file for plan in plans.values() for n in plan.added})
        raise


def _keep_all_up(
    plans: dict[Day, Change],
    days: Collection[Day],
    snapshot: Snapshot,
    plan: Callable[[Day, tuple[BarFile, ...]], Change],
    files: BarFiles,
) -> None:
    """Bring the dates' plans up to date, several at once: each waits for the disk most of all."""

    def keep_up(each: Day) -> None:
        interval, day = each
        base = snapshot.files.get(interval, {}).get(day, ())
        _keep_up(plans, each, base, plan, files)

    with ThreadPoolExecutor(_WRITERS, "sc-write") as pool:
        for _ in pool.map(keep_up, days):  # one that fails calls off those that have not begun
            pass


def _keep_up(
    plans: dict[Day, Change],
    day: Day,
    base: tuple[BarFile, ...],
    plan: Callable[[Day, tuple[BarFile, ...]], Change],
    files: BarFiles,
) -> None:
    """Bring a date's plan up to date; a date that nobody else has written keeps it."""
    old = plans.get(day)
    if old is not None and old.base == base:
        return
    for new in old.added if old is not None else ():
        files.discard(new.file)
    plans[day] = plan(day, base)


def _discard_uncommitted(log: DeltaLog, files: BarFiles, written: set[BarFile]) -> None:
    """Delete the new files of a change that was stopped, unless its commit came through."""
    with suppress(StoreError):  # what stopped the change is the error to report
        for file in written - log.snapshot().live:
            files.discard(file)


def _pauses() -> Iterator[float]:
    """Yield the seconds to wait after each attempt: doubling up to 1, half of it by chance."""
    chance = SystemRandom()
    for attempt in range(_ATTEMPTS):
        yield min(1.0, 0.01 * 2**attempt) * chance.uniform(0.5, 1.0)
