"""The made-up vendor of README.md on this machine, to try the source without a subscription.

python made_up_vendor.py BARS.csv --key KEY

The file has the columns symbol, time (ISO 8601 with its offset), open, high, low, close, volume.
"""

from __future__ import annotations

import argparse
import csv
import json
from contextlib import suppress
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

PAGE = 1_000
VALUES = ("open", "high", "low", "close", "volume")


class Vendor(ThreadingHTTPServer):
    """Serves the bars of a CSV file to those who have the key.

    Args:
        path: The file.
        key: The key.
        port: Where to listen, on this machine only; 0 for any free port.
    """

    def __init__(self, path: Path, key: str, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.key = key
        with path.open(newline="", encoding="utf-8") as file:
            self.bars = [
                {"symbol": row["symbol"], "time": row["time"]}
                | {name: float(row[name]) for name in VALUES}
                for row in csv.DictReader(file)
            ]
        self.symbols = {bar["symbol"] for bar in self.bars}

    def answer(self, path: str, query: dict[str, str]) -> object:
        """Return the document that answers a request; None where there is none."""
        asked = set(query.get("symbols", "").split(","))
        if path == "/v1/symbols":
            return {"symbols": sorted(asked & self.symbols)}
        if path != "/v1/bars" or query["interval"] != "1m":
            return None
        first, last = datetime.fromisoformat(query["from"]), datetime.fromisoformat(query["to"])
        found = [
            bar
            for bar in self.bars
            if bar["symbol"] in asked and first <= datetime.fromisoformat(str(bar["time"])) < last
        ]
        done = int(query.get("page", 0))
        rest = done + PAGE
        return {"bars": found[done:rest], "next_page": str(rest) if rest < len(found) else None}


class Handler(BaseHTTPRequestHandler):
    """Answers one customer; each request is a line on stderr."""

    protocol_version = "HTTP/1.1"
    server: Vendor

    def handle(self) -> None:
        """Serve a connection until the customer hangs up, politely or not."""
        with suppress(ConnectionError):
            super().handle()

    def do_GET(self) -> None:
        """Check the key and answer."""
        url = urlsplit(self.path)
        if self.headers["Authorization"] != f"Bearer {self.server.key}":
            self._send(401, {"error": "no such key"})
        elif (document := self.server.answer(url.path, dict(parse_qsl(url.query)))) is None:
            self._send(400, {"error": "no such question"})
        else:
            self._send(200, document)

    def _send(self, status: int, document: object) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bars", type=Path, help="a CSV file")
    parser.add_argument("--key", required=True)
    parser.add_argument("--port", type=int, default=8017)
    given = parser.parse_args()
    try:
        opened = Vendor(given.bars, given.key, given.port)
    except (OSError, KeyError, ValueError) as error:
        parser.error(f"{given.bars} cannot be served: {type(error).__name__}: {error}")
    with opened as vendor, suppress(KeyboardInterrupt):
        print(f"http://127.0.0.1:{vendor.server_port}/v1", flush=True)
        vendor.serve_forever()
