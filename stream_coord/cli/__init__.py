"""The `sc` command: one small file per command; each parses, calls the library, renders."""

from __future__ import annotations

from time import perf_counter


def main() -> None:
    """Run `sc` with the arguments of the process."""
    begun = perf_counter()
    from stream_coord.cli.app import build_app

    build_app()(obj=begun)
