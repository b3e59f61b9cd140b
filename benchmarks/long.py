"""Replays over many sessions, each in a process of its own: memory and time as it goes on."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from benchmarks.figures import Figure, Goal, Spread
from benchmarks.lab import Lab
from benchmarks.resident import Trace, traced_replay
from benchmarks.rolling import TRAILING
from benchmarks.sample import Sample
from stream_coord.calendars import Session

_FEW, _SOME = 20, 10
"""So many sessions are what a long replay, and what one of many symbols, is held against."""
_MOST_ROUNDS = 3
_SETTINGS = """\
[store]
url = "delta:{folder}"

[ledger]
url = "sqlite:///ledger.db"
"""


def resident_at_most(lab: Lab) -> Figure:
    """Measure the largest size at the end of a session, and show that of each."""
    traces = _long(lab)
    value = Spread.of([max(trace.resident[TRAILING:]) for trace in traces])
    samples = tuple(traces[0].resident)
    return Figure(
        f"{_replay(lab)}: resident, at most",
        value,
        "MiB",
        "window just full",
        _just_full(traces),
        Goal(1.1, "ratio"),
        samples,
    )


def resident_at_the_end(lab: Lab) -> Figure:
    traces = _long(lab)
    value = Spread.of([trace.resident[-1] for trace in traces])
    name = f"{_replay(lab)}: resident, at the end"
    return Figure(name, value, "MiB", "window just full", _just_full(traces), Goal(1.1, "ratio"))


def late_sessions(lab: Lab) -> Figure:
    millis = [1e3 * seconds for seconds in _long(lab)[0].session_seconds]
    count = min(_FEW, len(millis) // 2)
    late, early = Spread.of(millis[-count:]), Spread.of(millis[:count])
    name = f"{_replay(lab)}: each of the last {count} sessions"
    return Figure(name, late, "ms", f"of the first {count}", early, Goal(1.2, "ratio"))


def time_per_bar(lab: Lab) -> Figure:
    pairs = _long_and_short(lab)
    long, short = (_bar_nanos(traces) for traces in zip(*pairs, strict=True))
    name, few = f"{_replay(lab)}: time per bar", len(pairs[0][1].bars)
    return Figure(name, long, "ns", f"{few} sessions", short, Goal(1.2, "ratio"))


def time_per_bar_of_many(lab: Lab) -> Figure:
    """Measure a replay of many symbols; their history is loaded before the time begins."""
    stored = lab.sessions[: TRAILING + 1 if lab.quick else _SOME]
    sample = Sample.write(lab.folder / f"long-{lab.many}", lab.many, stored)
    few, sessions = lab.sample(lab.few), stored[TRAILING - 1 :]  # the first is not counted
    pairs = [(_trace(lab, sample, sessions), _trace(lab, few, sessions)) for _ in _rounds(lab)]
    many, fewer = (_bar_nanos(traces) for traces in zip(*pairs, strict=True))
    name = f"replay of {len(sessions)} sessions, {lab.many:,} symbols: time per bar"
    return Figure(name, many, "ns", f"{lab.few:,} symbols", fewer, Goal(1.2, "ratio"))


def _replay(lab: Lab) -> str:
    return f"replay of {len(lab.sessions)} sessions, {lab.few:,} symbols"


def _long(lab: Lab) -> Sequence[Trace]:
    return [long for long, _ in _long_and_short(lab)]


@cache
def _long_and_short(lab: Lab) -> Sequence[tuple[Trace, Trace]]:
    """Replay all sessions and a few, in turns."""
    sample, few = lab.sample(lab.few), 3 if lab.quick else _FEW
    return [
        (_trace(lab, sample, sample.sessions), _trace(lab, sample, sample.sessions[:few]))
        for _ in _rounds(lab)
    ]


def _rounds(lab: Lab) -> range:
    return range(min(lab.repeats, _MOST_ROUNDS))


def _trace(lab: Lab, sample: Sample, sessions: Sequence[Session]) -> Trace:
    settings = lab.folder / "long.toml"
    settings.write_text(_SETTINGS.format(folder=sample.folder.name))
    return traced_replay(settings, sessions[0].date, sessions[-1].date)


def _just_full(traces: Sequence[Trace]) -> Spread:
    """Return the size at the end of the first session that has all its history."""
    return Spread.of([trace.resident[TRAILING] for trace in traces])


def _bar_nanos(traces: Sequence[Trace]) -> Spread:
    return Spread.of([trace.bar_nanos for trace in traces])
