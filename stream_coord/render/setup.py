"""What `sc init` prints."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from stream_coord.setup import SetUp

_IMPORT = "sc import {folder} --tz America/New_York --label open"


def setup_json(done: SetUp) -> dict[str, object]:
    """Return the document of a new place."""
    return {
        "folder": str(done.folder),
        "settings": str(done.settings),
        "store": done.store,
        "ledger": done.ledger,
        "demo": None if done.demo is None else str(done.demo),
    }


def setup_text(done: SetUp) -> RenderableType:
    """Return what was made, and what to do next."""
    lines = [f"Settings {done.settings}", f"Store    {done.store}", f"Ledger   {done.ledger}"]
    if done.demo is not None:
        lines.append(f"Samples  {done.demo} (truth.json lists what is planted in them)")
    steps = [] if str(done.folder) == "." else [f"cd {done.folder}"]
    if done.demo is None:
        steps += ["sc import bars.csv --tz America/New_York --label open", "sc report"]
        steps += ["sc replay --from YYYY-MM-DD --to YYYY-MM-DD"]
    else:
        steps += [
            _IMPORT.format(folder="sample/bars"),
            _IMPORT.format(folder="sample/corrections"),
            "sc replay --from 2018-11-02 --to 2018-11-23",
            "sc report",
        ]
    return Group(*map(Text, lines), Text("\nNext", style="bold"), *(Text(f"  {s}") for s in steps))
