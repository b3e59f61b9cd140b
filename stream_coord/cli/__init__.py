"""The `sc` command: one small file per command; each parses, calls the library, renders."""

from __future__ import annotations

import os
import signal
import sys
from time import perf_counter


def main() -> None:
    """Run `sc` with the arguments of the process."""
    begun = perf_counter()
    # Whoever ends us (cron, systemd, a shutdown) gets what Ctrl-C gets: a tidy end, on record.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        _open_streams()
        from stream_coord.cli.app import build_app

        build_app()(obj=begun)
    except KeyboardInterrupt:  # before a command had begun
        sys.stderr.write("Interrupted.\n")
        sys.exit(130)
    except OSError as error:  # help that nobody can be shown
        sys.stderr.write(f"Error: cannot write the answer: {error.strerror}\n")
        sys.exit(1)


def _open_streams() -> None:
    """Let a closed stream swallow what is printed, and any stream take any character."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
        getattr(sys, name).reconfigure(errors="backslashreplace")
