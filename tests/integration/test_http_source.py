"""The example of an HTTP source, against a vendor on this machine that also misbehaves."""

from __future__ import annotations

import gzip
import importlib
import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from types import ModuleType
from typing import Protocol
from urllib.parse import parse_qs, urlsplit

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_coord.bars import frame_schema
from stream_coord.clock import FixedClock, SystemTimer, Timer
from stream_coord.config.settings import SourceSettings
from stream_coord.errors import ConfigError, SourceError
from stream_coord.interval import DAY, MINUTE, Interval
from stream_coord.sources.protocol import BarRange, BarSource

PLUGIN = Path(__file__).parents[2] / "examples" / "http_source"
KEY = "k3y-of-a-customer"
ONE_MINUTE = Interval(MINUTE)
OPEN = 1_380_893_400_000_000  # 2013-10-04 13:30 UTC
NOW = OPEN + 10 * DAY

Bars = dict[tuple[str, int], tuple[float, float, float, float, float]]


def moment(micros: int) -> str:
    return datetime.fromtimestamp(micros // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def micros_of(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp()) * 1_000_000


def minutes(symbol: str, first: int, count: int) -> Bars:
    """Return bars of consecutive minutes, counted from the open, each unlike any other."""
    height = 100.0 * len(symbol)
    return {
        (symbol, OPEN + (first + i) * MINUTE): (height + i, height + i + 1, height - 1, height, i)
        for i in range(count)
    }


def asked(symbol: str, first: int, count: int = 1) -> BarRange:
    return BarRange(symbol, OPEN + first * MINUTE, OPEN + (first + count) * MINUTE)


class Handler(BaseHTTPRequestHandler):
    """Notes each request, and answers as the next line of the script says, or else well."""

    protocol_version = "HTTP/1.1"
    server: Vendor

    def do_GET(self) -> None:
        vendor = self.server
        vendor.asked.append(self.path)
        vendor.keys.append(self.headers["Authorization"])
        answer = vendor.script.pop(0) if vendor.script else vendor.always
        answer(self)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Keep the tests quiet."""

    def send(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)


Answering = Callable[[Handler], None]


class Vendor(ThreadingHTTPServer):
    """A vendor of minute bars as examples/http_source/README.md describes it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.bars: Bars = {}
        self.page_size = 10_000
        self.asked: list[str] = []
        self.keys: list[str | None] = []
        self.script: list[Answering] = []
        self.always: Answering = self.answer
        self.over = Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    @property
    def bar_requests(self) -> int:
        return sum(path.startswith("/v1/bars?") for path in self.asked)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of customers that hang up."""

    def answer(self, handler: Handler) -> None:
        if handler.headers["Authorization"] != f"Bearer {KEY}":
            return handler.send(401)
        path = urlsplit(handler.path)
        query = {name: values[0] for name, values in parse_qs(path.query).items()}
        symbols = set(query["symbols"].split(","))
        if path.path == "/v1/symbols":
            known = sorted(symbols & {symbol for symbol, _ in self.bars})
            return handler.send(200, json.dumps({"symbols": known, "more": 1}).encode())
        assert path.path == "/v1/bars"
        assert query["interval"] == "1m"
        first, last = micros_of(query["from"]), micros_of(query["to"])
        keys = [key for key in sorted(self.bars) if key[0] in symbols and first <= key[1] < last]
        done = int(query.get("page", "0"))
        rest = done + self.page_size
        return handler.send(
            200, page_of(self.bars, keys[done:rest], str(rest) if rest < len(keys) else None)
        )


def page_of(bars: Bars, keys: Sequence[tuple[str, int]], next_page: str | None = None) -> bytes:
    rows = [
        {"symbol": key[0], "time": moment(key[1])}
        | dict(zip(("open", "high", "low", "close", "volume"), bars[key], strict=True))
        for key in keys
    ]
    return json.dumps({"bars": rows, "next_page": next_page}).encode()


def fixed(status: int, body: bytes = b"", **headers: str) -> Answering:
    return lambda handler: handler.send(status, body, **headers)


def hang_up(handler: Handler) -> None:
    handler.close_connection = True


def hang(handler: Handler) -> None:
    handler.server.over.wait(60)
    handler.close_connection = True


def drip(handler: Handler) -> None:
    """Send a space from time to time, for ever: each comes well before the time-out."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000000")
    handler.end_headers()
    while not handler.server.over.wait(0.02):
        handler.wfile.write(b" ")
    handler.close_connection = True


def break_off(handler: Handler) -> None:
    """Send less than was announced."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"bars": [')
    handler.close_connection = True


def break_off_in_a_chunk(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.wfile.write(b'400\r\n{"bars": [], "next_page"')
    handler.close_connection = True


class FakeTimer:
    """Time passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.sleeps: list[float] = []

    def seconds(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now += seconds

    def wake(self) -> None:
        raise AssertionError


class Maker(Protocol):
    def __call__(self, *, timer: Timer | None = None, **options: object) -> BarSource: ...


@pytest.fixture
def vendor() -> Iterator[Vendor]:
    with Vendor() as server:
        server.bars = minutes("IBM", 0, 10)
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.over.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(PLUGIN)
    return importlib.import_module("http_bars")


@pytest.fixture
def timer() -> FakeTimer:
    return FakeTimer()


@pytest.fixture
def source(plugin: ModuleType, vendor: Vendor, timer: FakeTimer) -> Iterator[Maker]:
    """Return a function that makes a source of the vendor; time is the test's own, if not given."""
    made: list[BarSource] = []
    patience = {"attempts": 4, "backoff_seconds": 1.0, "requests_per_second": 1_000.0}
    own = timer

    def make(*, timer: Timer | None = None, **options: object) -> BarSource:
        defaults = {"api_key": KEY, "from_": "2013-10-01", "timeout_seconds": 5.0} | patience
        settings = SourceSettings(
            name="vendor",
            kind="http-bars",
            url=vendor.url + "/",
            options={name.rstrip("_"): value for name, value in (defaults | options).items()},
        )
        made.append(plugin.HttpBars(settings, Path(), clock=FixedClock(NOW), timer=timer or own))
        return made[-1]

    yield make
    for each in made:
        each.close()


def bars_in(frame: pl.DataFrame) -> Bars:
    """Return a source's answer as the vendor keeps its bars."""
    assert frame.select(sorted(frame.columns)).schema == dict(sorted(frame_schema().items()))
    rows = frame.select("symbol", "start", "open", "high", "low", "close", "volume").rows()
    assert len({row[:2] for row in rows}) == len(rows)
    return {row[:2]: row[2:] for row in rows}


WHOLE = [asked("IBM", 0, 10)]


# What the vendor answers.


def test_all_pages_are_asked_for(source: Maker, vendor: Vendor) -> None:
    vendor.page_size = 4
    assert bars_in(source().bars(ONE_MINUTE, WHOLE)) == vendor.bars
    assert [parse_qs(urlsplit(path).query).get("page") for path in vendor.asked] == [
        None,
        ["4"],
        ["8"],
    ]


def test_an_answer_without_bars_is_an_answer(source: Maker, vendor: Vendor) -> None:
    assert bars_in(source().bars(ONE_MINUTE, [asked("IBM", 100, 5)])) == {}
    assert len(vendor.asked) == 1


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(
            lambda body: fixed(200, gzip.compress(body), Content_Encoding="gzip"), id="packed"
        ),
        pytest.param(
            lambda body: fixed(
                200,
                b"%x\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n" % (7, body[:7], len(body) - 7, body[7:]),
                Transfer_Encoding="chunked",
            ),
            id="chunked",
        ),
    ],
)
def test_other_forms_of_a_good_answer(
    source: Maker, vendor: Vendor, answer: Callable[[bytes], Answering]
) -> None:
    vendor.script = [answer(page_of(vendor.bars, sorted(vendor.bars)))]
    assert bars_in(source().bars(ONE_MINUTE, WHOLE)) == vendor.bars


def test_symbols_and_ranges_share_requests(source: Maker, vendor: Vendor) -> None:
    """120 symbols lack two minutes close by and one in the next week: 3 times 2 requests."""
    names = [f"S{n}" for n in range(120)]
    week = 7 * 24 * 60
    vendor.bars = {
        key: values
        for name in names
        for first in (3, 9, week)
        for key, values in minutes(name, first, 1).items()
    }
    ranges = sorted(asked(name, first) for name in names for first in (3, 9, week))
    assert bars_in(source().bars(ONE_MINUTE, ranges)) == vendor.bars
    assert len(vendor.asked) == 6


def test_a_request_is_not_widened_beyond_a_page(source: Maker, vendor: Vendor) -> None:
    """Two minutes 6 apart are asked for at once where a page holds 7 bars, but not where 6."""
    for size, requests in ((7, 1), (6, 2)):
        vendor.asked.clear()
        found = source(bars_per_page=size).bars(ONE_MINUTE, [asked("IBM", 1), asked("IBM", 7)])
        assert {("IBM", OPEN + MINUTE), ("IBM", OPEN + 7 * MINUTE)} <= bars_in(found).keys()
        assert len(vendor.asked) == requests


@st.composite
def some_ranges(draw: st.DrawFn) -> list[BarRange]:
    """Draw ranges of a few symbols, sorted and not overlapping."""
    ranges = []
    for symbol in draw(st.sets(st.sampled_from("ABCDEFG"))):
        edges = sorted(draw(st.sets(st.integers(0, 60), max_size=12)))
        ranges += [
            asked(symbol, first, last - first)
            for first, last in zip(edges[::2], edges[1::2], strict=False)
        ]
    return sorted(ranges)


@given(ranges=some_ranges(), symbols=st.integers(1, 5), bars=st.integers(1, 400))
def test_questions_hold_all_that_is_asked_and_keep_the_limits(
    ranges: list[BarRange], symbols: int, bars: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(PLUGIN)
        questions = importlib.import_module("http_bars").questions
    found = list(questions(ranges, MINUTE, symbols, bars))
    wanted = {(part.symbol, at) for part in ranges for at in range(part.start, part.end, MINUTE)}
    held = {(symbol, at) for one in found for symbol in one.symbols for at in one.starts}
    assert wanted <= held
    lengths = {part.end - part.start for part in ranges}
    for one in found:
        assert len(one.symbols) <= symbols
        fits = len(one.symbols) * len(one.starts) <= bars
        assert fits or (len(one.symbols) == 1 and len(one.starts) * MINUTE in lengths)
    assert len(found) <= len(ranges)


# What may be over when asked again.

PASSING = {
    **{str(status): fixed(status) for status in (429, 500, 501, 502, 503, 504)},
    "closed without an answer": hang_up,
    "body broken off": break_off,
    "chunk broken off": break_off_in_a_chunk,
    "JSON broken off": fixed(200, b'{"bars": [{"symbol": "IB'),
    "nothing": fixed(200),
    "a page of HTML": fixed(200, b"<html>Back soon</html>"),
    "no gzip": fixed(200, b"{}", Content_Encoding="gzip"),
    "no text": fixed(200, b'{"bars": [{"symbol": "\xff", "time": "\xff"'),
}


@pytest.mark.parametrize("failing", PASSING.values(), ids=list(PASSING))
def test_a_passing_failure_is_asked_again(
    source: Maker, vendor: Vendor, timer: FakeTimer, failing: Answering
) -> None:
    vendor.script = [failing]
    assert bars_in(source().bars(ONE_MINUTE, WHOLE)) == vendor.bars
    assert len(vendor.asked) == 2
    (wait,) = timer.sleeps
    assert 0.5 <= wait <= 1.0


@pytest.mark.parametrize("failing", PASSING.values(), ids=list(PASSING))
def test_a_failure_that_stays_is_one(
    source: Maker, vendor: Vendor, timer: FakeTimer, failing: Answering
) -> None:
    vendor.always = failing
    with pytest.raises(SourceError, match="attempt 4, the last one"):
        source().bars(ONE_MINUTE, WHOLE)
    assert len(vendor.asked) == 4
    assert [wait / longest for wait, longest in zip(timer.sleeps, (1, 2, 4), strict=True)] == [
        pytest.approx(0.75, abs=0.25) for _ in range(3)
    ]


def test_waits_differ_and_have_a_limit(source: Maker, vendor: Vendor, timer: FakeTimer) -> None:
    vendor.always = fixed(503)
    with pytest.raises(SourceError):
        source(attempts=12, max_wait_seconds=8.0).bars(ONE_MINUTE, WHOLE)
    assert len(vendor.asked) == 12
    assert max(timer.sleeps) <= 8
    assert len(set(timer.sleeps)) == 11


def test_a_vendor_that_is_down_is_tried_once_until_it_is_back(
    source: Maker, vendor: Vendor, timer: FakeTimer
) -> None:
    asking = source()
    for answer, requests in ((503, 4), (503, 1), (429, 1), (200, 1), (503, 4)):
        vendor.always = fixed(answer) if answer != 200 else vendor.answer
        vendor.asked.clear()
        if answer == 200:
            assert bars_in(asking.bars(ONE_MINUTE, WHOLE)) == vendor.bars
        else:
            with pytest.raises(SourceError, match=str(answer)):
                asking.bars(ONE_MINUTE, WHOLE)
        assert len(vendor.asked) == requests
    assert len([wait for wait in timer.sleeps if wait >= 0.5]) == 6


def test_all_kinds_of_failure_count_together(source: Maker, vendor: Vendor) -> None:
    vendor.script = [fixed(500), hang_up, fixed(200, b"{"), fixed(429)]
    with pytest.raises(SourceError, match="429"):
        source().bars(ONE_MINUTE, WHOLE)
    assert len(vendor.asked) == 4


def test_each_page_has_its_own_attempts(source: Maker, vendor: Vendor) -> None:
    vendor.page_size = 4
    vendor.script = [fixed(500), fixed(500), vendor.answer, hang_up, fixed(429)]
    assert bars_in(source(attempts=3).bars(ONE_MINUTE, WHOLE)) == vendor.bars
    assert len(vendor.asked) == 3 + 4


@pytest.mark.parametrize("silence", [hang, drip])
def test_silence_ends_at_the_time_out(source: Maker, vendor: Vendor, silence: Answering) -> None:
    vendor.script = [silence]
    patient = source(timer=SystemTimer(), timeout_seconds=0.2, backoff_seconds=0.001, attempts=9)
    assert bars_in(patient.bars(ONE_MINUTE, WHOLE)) == vendor.bars
    vendor.always = silence
    with pytest.raises(SourceError, match="attempt 2"):
        source(timer=SystemTimer(), timeout_seconds=0.05, backoff_seconds=0.001, attempts=2).bars(
            ONE_MINUTE, WHOLE
        )


def test_nobody_is_there(source: Maker, vendor: Vendor, timer: FakeTimer) -> None:
    vendor.server_close()
    with pytest.raises(SourceError, match="attempt 4"):
        source().bars(ONE_MINUTE, WHOLE)
    assert len(timer.sleeps) == 3


def test_retry_after_is_kept(source: Maker, vendor: Vendor, timer: FakeTimer) -> None:
    vendor.script = [fixed(429, Retry_After="17"), fixed(503, Retry_After="0")]
    assert bars_in(source().bars(ONE_MINUTE, WHOLE)) == vendor.bars
    assert timer.sleeps[0] == 17
    assert 1 <= timer.sleeps[1] <= 2


def test_retry_after_may_be_a_date(source: Maker, vendor: Vendor, timer: FakeTimer) -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(minutes=30), usegmt=True)
    vendor.script = [fixed(429, Retry_After=later)]
    assert bars_in(source(max_wait_seconds=3_600.0).bars(ONE_MINUTE, WHOLE)) == vendor.bars
    assert 1_000 < timer.sleeps[0] <= 1_800


@pytest.mark.parametrize("text", ["soon", "-5", "9" * 5_000, "Fri, 99 Foo 20130 25:61:61 GMT", ""])
def test_retry_after_may_be_nonsense(
    source: Maker, vendor: Vendor, timer: FakeTimer, text: str
) -> None:
    vendor.script = [fixed(429, Retry_After=text)]
    assert bars_in(source().bars(ONE_MINUTE, WHOLE)) == vendor.bars
    assert timer.sleeps == [pytest.approx(0.75, abs=0.25)]


def test_nobody_waits_for_an_hour(source: Maker, vendor: Vendor, timer: FakeTimer) -> None:
    vendor.script = [fixed(429, Retry_After="3600")]
    with pytest.raises(SourceError, match="asks to wait 3600 seconds"):
        source().bars(ONE_MINUTE, WHOLE)
    assert len(vendor.asked) == 1
    assert timer.sleeps == []


def test_requests_keep_the_vendors_rate(source: Maker, vendor: Vendor, timer: FakeTimer) -> None:
    vendor.page_size = 2
    source(requests_per_second=4.0).bars(ONE_MINUTE, WHOLE)
    assert len(vendor.asked) == 5
    assert timer.sleeps == [0.25] * 4


# What asking again does not mend.


@pytest.mark.parametrize("status", [204, 304, 400, 401, 403, 404, 422])
def test_a_refusal_is_not_asked_again(source: Maker, vendor: Vendor, status: int) -> None:
    vendor.always = fixed(status)
    with pytest.raises(SourceError, match=f"answered {status}"):
        source().bars(ONE_MINUTE, WHOLE)
    assert len(vendor.asked) == 1


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_gets_no_key(source: Maker, vendor: Vendor, status: int) -> None:
    with Vendor() as other:
        Thread(target=other.serve_forever, kwargs={"poll_interval": 0.01}).start()
        vendor.always = fixed(status, Location=f"{other.url}/bars")
        with pytest.raises(SourceError, match=f"answered {status}"):
            source().bars(ONE_MINUTE, WHOLE)
        other.shutdown()
    assert (len(vendor.asked), other.asked) == (1, [])


GOOD = {"symbol": "IBM", "time": moment(OPEN)} | dict.fromkeys(
    ("open", "high", "low", "close", "volume"), 1
)


def document(*bars: object, **more: object) -> bytes:
    return json.dumps({"bars": bars, "next_page": None} | more).encode()


WRONG = {
    "price as text": document(GOOD | {"open": "1.5"}),
    "price missing": document({name: GOOD[name] for name in GOOD if name != "close"}),
    "price null": document(GOOD | {"high": None}),
    "price true": document(GOOD | {"high": True}),
    "price not finite": document(GOOD).replace(b'"low": 1', b'"low": 1e400'),
    "time without offset": document(GOOD | {"time": "2013-10-04T13:30:00"}),
    "time as number": document(GOOD | {"time": 1380893400}),
    "before what was asked": document(GOOD | {"time": moment(OPEN - MINUTE)}),
    "after what was asked": document(GOOD | {"time": moment(OPEN + 10 * MINUTE)}),
    "between two minutes": document(GOOD | {"time": moment(OPEN + MINUTE // 2)}),
    "at the end of time": document(GOOD | {"time": "9999-12-31T23:59:59-14:00"}),
    "another symbol": document(GOOD | {"symbol": "AIG[/b]"}),
    "twice": document(GOOD, GOOD),
    "twice, with other values": document(GOOD, GOOD | {"open": 2}),
    "no list": document()[:-1] + b', "bars": {}}',
    "no bars": b'{"next_page": null}',
    "no next page": b'{"bars": []}',
    "next page a number": document(GOOD, next_page=3),
    "empty page before the last": document(next_page="3"),
    "another document": b"[]",
    "an error with status 200": b'{"error": "no such symbol"}',
    "nested without end": b'{"more": ' + b"[" * 100_000,
}


@pytest.mark.parametrize("body", WRONG.values(), ids=list(WRONG))
def test_a_wrong_answer_is_a_failure_and_not_asked_again(
    source: Maker, vendor: Vendor, body: bytes
) -> None:
    vendor.always = fixed(200, body)
    with pytest.raises(SourceError):
        source().bars(ONE_MINUTE, WHOLE)
    assert len(vendor.asked) == 1


def test_json_that_says_nan_is_no_json(source: Maker, vendor: Vendor) -> None:
    vendor.always = fixed(200, document(GOOD | {"volume": float("nan")}))
    with pytest.raises(SourceError, match="no JSON"):
        source().bars(ONE_MINUTE, WHOLE)


def test_pages_that_never_end_are_noticed(source: Maker, vendor: Vendor) -> None:
    """The same page again under another name is one page too many."""
    pages = iter(range(100))

    def another(handler: Handler) -> None:
        handler.send(200, document(GOOD, next_page=f"p{next(pages)}"))

    vendor.always = another
    with pytest.raises(SourceError, match="twice"):
        source().bars(ONE_MINUTE, WHOLE)
    assert len(vendor.asked) == 2


def test_an_answer_without_measure_is_cut(
    source: Maker, vendor: Vendor, plugin: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.import_module("http_bars.client"), "MOST_ANSWER_BYTES", 1_000)
    bomb = gzip.compress(b" " * 1_000_000)
    vendor.always = fixed(200, bomb, Content_Encoding="gzip")
    with pytest.raises(SourceError, match="more than 1,000 bytes"):
        source().bars(ONE_MINUTE, WHOLE)
    assert len(vendor.asked) == 1


# The key.


def test_the_key_is_sent_and_never_told(source: Maker, vendor: Vendor) -> None:
    asking = source()
    asking.bars(ONE_MINUTE, WHOLE)
    assert vendor.keys == [f"Bearer {KEY}"]
    vendor.always = fixed(401)
    with pytest.raises(SourceError) as refused:
        asking.bars(ONE_MINUTE, WHOLE)
    assert "key" in str(refused.value)
    assert KEY not in f"{refused.value!r} {refused.value} {asking!r}"


def test_a_wrong_key_is_refused_once(source: Maker, vendor: Vendor) -> None:
    with pytest.raises(SourceError, match="401"):
        source(api_key="stolen").bars(ONE_MINUTE, WHOLE)
    assert len(vendor.asked) == 1


# What the vendor covers.


def test_coverage_is_what_the_subscription_and_the_delay_leave(
    source: Maker, vendor: Vendor
) -> None:
    asking = source(from_="2013-10-03", delay_minutes=15)
    midnight = OPEN - OPEN % DAY - DAY
    whole = BarRange("IBM", midnight - DAY, NOW + DAY)
    assert list(asking.coverage(ONE_MINUTE, [whole])) == [
        BarRange("IBM", midnight, NOW - 15 * MINUTE)
    ]
    early = source(from_="2013-10-03", until="2013-10-03")
    assert list(early.coverage(ONE_MINUTE, [whole])) == [BarRange("IBM", midnight, midnight + DAY)]
    assert list(early.coverage(ONE_MINUTE, WHOLE)) == []


def test_a_bar_that_is_not_due_yet_is_not_covered(source: Maker, vendor: Vendor) -> None:
    """12:30 is the last end of an hour before 13:15, which is 15 minutes ago: 13:00 is."""
    hour = Interval(60 * MINUTE)
    (part,) = source().coverage(hour, [BarRange("IBM", NOW - DAY, NOW)])
    assert moment(part.end) == "2013-10-14T13:00:00Z"


def test_symbols_that_the_vendor_lacks_are_not_covered(source: Maker, vendor: Vendor) -> None:
    asking = source(symbols_per_request=2)
    ranges = [asked(symbol, 0) for symbol in ("AIG", "GE", "IBM")]
    for _ in range(2):
        assert list(asking.coverage(ONE_MINUTE, ranges)) == [asked("IBM", 0)]
        assert len(vendor.asked) == 2
    asking.close()
    vendor.bars |= minutes("GE", 0, 1)
    assert list(asking.coverage(ONE_MINUTE, ranges)) == ranges[1:]


def test_coverage_that_cannot_be_told_is_a_failure(source: Maker, vendor: Vendor) -> None:
    vendor.always = fixed(503)
    with pytest.raises(SourceError, match="503"):
        source().coverage(ONE_MINUTE, WHOLE)
    assert len(vendor.asked) == 4


# Its settings.


@pytest.mark.parametrize(
    ("url", "options"),
    [
        (None, {}),
        ("", {}),
        ("http://bars.example/v1", {}),
        ("https://me:secret@bars.example/v1", {}),
        ("https://bars.example/v1?key=secret", {}),
        ("https://[broken/v1", {}),
        ("ftp://bars.example", {}),
        ("bars.example/v1", {}),
        ("https://bars.example", {"api_key": "secret\r\nHost: elsewhere"}),
        ("https://bars.example", {"api_key": ""}),
        ("https://bars.example", {"api_key": "s\u00e4cret"}),
        ("https://bars.example", {"api_key": 7}),
        ("https://bars.example", {"from": "yesterday"}),
        ("https://bars.example", {"attempts": 0}),
        ("https://bars.example", {"attempts": True}),
        ("https://bars.example", {"timeout_seconds": float("inf")}),
        ("https://bars.example", {"retries": 5}),
    ],
)
def test_wrong_settings_are_told_without_the_key(
    plugin: ModuleType, url: str | None, options: dict[str, object]
) -> None:
    settings = SourceSettings(
        name="vendor",
        kind="http-bars",
        url=url,
        options={"api_key": "secret", "from": "2013-10-01"} | options,
    )
    with pytest.raises(ConfigError, match=r"^(url|options): ") as told:
        plugin.HttpBars(settings, Path())
    assert "cret" not in str(told.value)
