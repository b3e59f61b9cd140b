"""What tests of several rooms share: the installed command, and the real bars."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# How long an example takes says more about the machine than about the code.
# The same tree gets the same verdict; `make explore` looks for what nobody has met yet.
settings.register_profile("stream-coord", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None)
settings.load_profile("stream-coord")

REPOSITORY = Path(__file__).parents[1]
REAL_DATA = Path(os.environ.get("SC_REAL_DATA", REPOSITORY / "../shared/data"))
COMMAND = Path(sys.executable).with_name("sc")


@dataclass(frozen=True)
class Answer:
    """What one call of the command answered."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The JSON document on stdout."""
        assert self.out, self.err
        return json.loads(self.out)


@pytest.fixture
def sc(tmp_path: Path) -> Callable[..., Answer]:
    """Return a function that runs ``sc`` in the test's folder; keywords are its environment."""

    def run(*args: object, **environ: str) -> Answer:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SC_")}
        done = subprocess.run(
            [COMMAND, *map(str, args)],
            cwd=tmp_path,
            env=kept | {"COLUMNS": "200"} | environ,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Answer(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def real_bars() -> Path:
    """Return the folder of real LEAN bars."""
    folder = REAL_DATA / "lean"
    if not folder.is_dir():
        pytest.skip(f"the real bars are not at {folder} (SC_REAL_DATA names their folder)")
    return folder
