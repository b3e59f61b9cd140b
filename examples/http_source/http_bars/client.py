"""Asks an HTTP vendor in JSON: no faster than it allows, and again where that may help."""

from __future__ import annotations

from random import SystemRandom
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta, Struct
from urllib3 import BaseHTTPResponse, PoolManager, Retry, Timeout
from urllib3.exceptions import HTTPError

from stream_coord.clock import Timer
from stream_coord.errors import SourceError

RETRIED_STATUSES = frozenset({429, 500, 501, 502, 503, 504})
MOST_ANSWER_BYTES = 64 * 2**20
_CHUNK_BYTES = 65_536

Seconds = Annotated[float, Meta(gt=0, le=3_600)]
_T = TypeVar("_T")


class Patience(Struct, frozen=True, kw_only=True):
    """How a vendor wants to be asked, and how long its failures are borne.

    Attributes:
        requests_per_second: How many requests the vendor allows, retries included.
        timeout_seconds: How long one request may take.
        attempts: How often a request is made at most, whatever goes wrong with it.
        backoff_seconds: The longest wait before the second attempt; each next one may be twice as
            long.
        max_wait_seconds: The longest wait of all; a vendor that asks for more has failed.
    """

    requests_per_second: Annotated[float, Meta(gt=0, le=1_000)] = 5.0
    timeout_seconds: Seconds = 10.0
    attempts: Annotated[int, Meta(ge=1, le=20)] = 5
    backoff_seconds: Seconds = 0.5
    max_wait_seconds: Seconds = 60.0


class _PassingError(Exception):
    """A failure that may be over when asked again, at the earliest in `wait_seconds`."""

    def __init__(self, what: str, wait_seconds: float = 0.0) -> None:
        super().__init__(what)
        self.wait_seconds = wait_seconds


class Client:
    """Asks a vendor.

    Args:
        url: Where the vendor's interface begins, without a slash at its end.
        api_key: What the vendor knows the customer by; sent with each request, shown nowhere.
        patience: Limits and times.
        timer: Measures and waits.
    """

    def __init__(self, url: str, api_key: str, patience: Patience, timer: Timer) -> None:
        self._url = url
        self._patience = patience
        self._timer = timer
        self._next_turn = 0.0
        self._is_down = False
        self._random = SystemRandom()
        self._pool = PoolManager(
            headers={
                "Accept": "application/json",
                "Accept-Encoding": "gzip",
                "Authorization": f"Bearer {api_key}",
                "User-Agent": "stream-coord-http-bars/0.1",
            },
            retries=False,  # `get` makes them: an answer that is no JSON is to count as well
            timeout=Timeout(total=patience.timeout_seconds),
        )

    def get(self, path: str, query: dict[str, str], decoder: msgspec.json.Decoder[_T]) -> _T:
        """Return the answer to a request.

        After a request that used up its attempts the next ones have one each, until there is an
        answer again: a vendor that is down costs time once, not at each question.

        Raises:
            SourceError: there is none, or none that can be trusted.
        """
        attempt = 1
        while True:
            self._await_turn()
            try:
                answer = self._decode(self._body(path, query), decoder)
            except _PassingError as failure:
                if self._is_down or attempt == self._patience.attempts:
                    self._is_down = True
                    raise self.failure(f"{failure} (attempt {attempt}, the last one)") from failure
                if failure.wait_seconds > self._patience.max_wait_seconds:
                    wish = f"asks to wait {failure.wait_seconds:.0f} seconds"
                    raise self.failure(f"{failure} and {wish}") from failure
                wait_seconds = max(failure.wait_seconds, self._backoff_seconds(attempt))
            else:
                self._is_down = False
                return answer
            self._timer.sleep(wait_seconds)
            attempt += 1

    def failure(self, what: str) -> SourceError:
        """Return the error that says what the vendor did."""
        return SourceError(f"{self._url} {what}")

    def close(self) -> None:
        """Close the connections; the next request opens new ones."""
        self._pool.clear()

    def _await_turn(self) -> None:
        now = self._timer.seconds()
        if now < self._next_turn:
            self._timer.sleep(self._next_turn - now)
        self._next_turn = max(now, self._next_turn) + 1 / self._patience.requests_per_second

    def _backoff_seconds(self, attempt: int) -> float:
        """Return a random wait, so that those who failed together do not come back together."""
        longest = self._patience.backoff_seconds * 2.0 ** (attempt - 1)
        return self._random.uniform(0.5, 1.0) * min(longest, self._patience.max_wait_seconds)

    def _body(self, path: str, query: dict[str, str]) -> bytes:
        late = self._timer.seconds() + self._patience.timeout_seconds
        try:
            # A redirect is not followed: it could carry the key to somebody else.
            with self._pool.request(
                "GET", self._url + path, fields=query, redirect=False, preload_content=False
            ) as response:
                self._check_status(response)
                return self._read(response, late)
        except HTTPError as error:
            raise _PassingError(f"could not be asked: {type(error).__name__}: {error}") from error

    def _read(self, response: BaseHTTPResponse, late: float) -> bytes:
        body = bytearray()
        # read1 returns what has come, so that a vendor that sends drop by drop is noticed.
        while chunk := response.read1(_CHUNK_BYTES):
            body += chunk
            if len(body) > MOST_ANSWER_BYTES:
                raise self.failure(f"sent more than {MOST_ANSWER_BYTES:,} bytes at once")
            if self._timer.seconds() > late:
                raise _PassingError("took too long to answer")
        return bytes(body)

    def _check_status(self, response: BaseHTTPResponse) -> None:
        if response.status in RETRIED_STATUSES:
            raise _PassingError(f"answered {response.status}", _retry_after_seconds(response))
        if response.status != 200:
            hints = {401: ": is the key right?", 403: ": does the subscription cover this?"}
            raise self.failure(f"answered {response.status}{hints.get(response.status, '')}")

    def _decode(self, body: bytes, decoder: msgspec.json.Decoder[_T]) -> _T:
        try:
            return decoder.decode(body)
        except (msgspec.ValidationError, RecursionError) as error:
            raise self.failure(f"sent what is not of the agreed form: {error}") from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise _PassingError(f"sent what is no JSON: {error}") from error


def _retry_after_seconds(response: BaseHTTPResponse) -> float:
    """Read the header Retry-After: seconds, or a date of HTTP; 0 where there is nothing to read."""
    try:
        return float(Retry().get_retry_after(response) or 0)
    except (HTTPError, ValueError, OverflowError):
        return 0.0
