"""What ends a command becomes words and an exit code."""

from __future__ import annotations

import pytest

from stream_coord.cli.guard import guarded


class Interrupting:
    def __set_name__(self, owner: type, name: str) -> None:
        raise KeyboardInterrupt


def make_a_class() -> None:
    """Python 3.11 wraps what a `__set_name__` raises in a RuntimeError."""
    type("Made", (), {"attribute": Interrupting()})


def press_ctrl_c() -> None:
    raise KeyboardInterrupt


def fail() -> None:
    raise RuntimeError("no")


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        (press_ctrl_c, 130, "Interrupted."),
        (make_a_class, 130, "Interrupted."),
        (fail, 1, "This is a bug"),
    ],
)
def test_ctrl_c_is_no_bug_wherever_it_strikes(
    capsys: pytest.CaptureFixture[str], command: object, code: int, words: str
) -> None:
    assert callable(command)
    with pytest.raises(SystemExit) as ended:
        guarded(command)()
    assert ended.value.code == code
    assert words in capsys.readouterr().err
