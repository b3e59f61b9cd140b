"""Finding and making a strategy, and saying where user code went wrong."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from stream_coord import strategy as strategy_module
from stream_coord.errors import StrategyError, UsageError
from stream_coord.strategy import Strategy, describe, load_strategy

CROSSING = """
    from stream_coord.strategy import Strategy

    class Crossing(Strategy):
        def __init__(self, fast=5, slow=20):
            self.fast, self.slow = fast, slow

    class Helper:
        pass
"""


@pytest.fixture(autouse=True)
def _modules_are_forgotten() -> Iterator[None]:
    modules, path = set(sys.modules), list(sys.path)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dedent(text))
    return path


class TestFound:
    def test_in_a_file_beside_the_settings(self, tmp_path: Path) -> None:
        write(tmp_path / "mine.py", CROSSING)
        loaded = load_strategy("mine.py:Crossing", {"fast": 3}, tmp_path)
        assert isinstance(loaded, Strategy)
        assert vars(loaded) == {"fast": 3, "slow": 20}

    def test_in_a_file_elsewhere(self, tmp_path: Path) -> None:
        path = write(tmp_path / "far" / "away-1.2.py", CROSSING)
        for spec in (f"{path}:Crossing", "far/away-1.2.py:Crossing"):
            assert type(load_strategy(spec, {}, tmp_path)).__name__ == "Crossing"

    def test_in_a_module_beside_the_settings(self, tmp_path: Path) -> None:
        write(tmp_path / "mine_of_test.py", CROSSING)
        assert vars(load_strategy("mine_of_test:Crossing", {"slow": 9}, tmp_path))["slow"] == 9

    def test_in_a_package(self, tmp_path: Path) -> None:
        write(tmp_path / "pack_of_test" / "__init__.py", "")
        write(tmp_path / "pack_of_test" / "deep.py", CROSSING)
        loaded = load_strategy("pack_of_test.deep:Crossing", {}, tmp_path)
        assert type(loaded).__module__ == "pack_of_test.deep"

    def test_in_an_installed_module(self, tmp_path: Path) -> None:
        loaded = load_strategy("stream_coord.strategy:Strategy", {}, tmp_path)
        assert type(loaded) is Strategy

    @pytest.mark.parametrize("spec", ["far/mine.py:Importing", "mine_of_test:Importing"])
    def test_a_hook_may_import_a_neighbour(self, tmp_path: Path, spec: str) -> None:
        folder = tmp_path / "far" if "/" in spec else tmp_path
        text = """
            from stream_coord.strategy import Strategy

            class Importing(Strategy):
                def result(self):
                    from neighbour_of_test import N
                    return N
            """
        for name in ("mine.py", "mine_of_test.py"):
            write(folder / name, text)
        write(folder / "neighbour_of_test.py", "N = 7")
        assert load_strategy(spec, {}, tmp_path).result() == 7

    def test_a_file_that_is_named_like_a_library_does_not_hide_it(self, tmp_path: Path) -> None:
        write(tmp_path / "random.py", "import random\nSEED = random.Random(1)" + dedent(CROSSING))
        load_strategy("random.py:Crossing", {}, tmp_path)
        assert sys.modules["random"] is random
        assert hasattr(random, "shuffle")

    def test_a_dataclass_in_a_strategy_file_finds_its_module(self, tmp_path: Path) -> None:
        write(
            tmp_path / "mine.py",
            """
            from __future__ import annotations
            from dataclasses import dataclass, field
            from typing import ClassVar
            from stream_coord.strategy import Strategy

            @dataclass
            class Counting(Strategy):
                limit: int
                seen: list[str] = field(default_factory=list)
                name: ClassVar[str] = "x"
            """,
        )
        loaded = load_strategy("mine.py:Counting", {"limit": 4}, tmp_path)
        assert vars(loaded) == {"limit": 4, "seen": []}

    def test_each_call_makes_a_new_one(self, tmp_path: Path) -> None:
        write(tmp_path / "mine.py", CROSSING)
        first, second = (load_strategy("mine.py:Crossing", {}, tmp_path) for _ in range(2))
        assert first is not second


class TestNotFound:
    @pytest.mark.parametrize("spec", ["", "mine", "mine.py", ":Crossing", "mine.py:", ":"])
    def test_a_text_of_another_form(self, tmp_path: Path, spec: str) -> None:
        with pytest.raises(UsageError, match="names no strategy") as caught:
            load_strategy(spec, {}, tmp_path)
        assert "module:Class or path.py:Class" in str(caught.value)

    def test_no_such_file(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"there is no strategy file '.*nowhere\.py'"):
            load_strategy("nowhere.py:Crossing", {}, tmp_path)
        (tmp_path / "folder.py").mkdir()
        with pytest.raises(UsageError, match=r"there is no strategy file"):
            load_strategy("folder.py:Crossing", {}, tmp_path)

    @pytest.mark.parametrize(
        "module", ["nowhere_of_test", "nowhere_of_test.deep", "pack_of_test.nowhere", "a/b", "mod."]
    )
    def test_no_such_module(self, tmp_path: Path, module: str) -> None:
        write(tmp_path / "pack_of_test" / "__init__.py", "")
        with pytest.raises(UsageError, match=f"there is no module '{module}'"):
            load_strategy(f"{module}:Crossing", {}, tmp_path)

    def test_a_class_of_another_name_is_guessed(self, tmp_path: Path) -> None:
        write(tmp_path / "mine.py", CROSSING)
        with pytest.raises(UsageError, match=r"no strategy class 'Crosing' \(did you mean 'Cross"):
            load_strategy("mine.py:Crosing", {}, tmp_path)

    @pytest.mark.parametrize("name", ["Helper", "dedent"])
    def test_a_class_that_is_no_strategy(self, tmp_path: Path, name: str) -> None:
        write(tmp_path / "mine.py", dedent(CROSSING) + "from textwrap import dedent\n")
        with pytest.raises(UsageError, match=f"mine.py has no strategy class '{name}'") as caught:
            load_strategy(f"mine.py:{name}", {}, tmp_path)
        assert caught.value.hint == "The class derives from stream_coord.strategy.Strategy."


class TestFailing:
    def test_an_error_on_import_names_the_line_of_the_file(self, tmp_path: Path) -> None:
        path = write(tmp_path / "mine.py", "x = 1\ny = {}['price']\n")
        with pytest.raises(StrategyError) as caught:
            load_strategy("mine.py:Crossing", {}, tmp_path)
        assert str(caught.value) == f"importing mine.py: KeyError: 'price' ({path}, line 2)"
        assert isinstance(caught.value.__cause__, KeyError)

    def test_a_module_that_lacks_another_is_not_a_missing_module(self, tmp_path: Path) -> None:
        write(tmp_path / "mine_of_test.py", "import nothing_of_that_name\n")
        for spec in ("mine_of_test:Crossing", "mine_of_test.py:Crossing"):
            with pytest.raises(StrategyError, match="No module named 'nothing_of_that_name'"):
                load_strategy(spec, {}, tmp_path)

    @pytest.mark.parametrize("text", ["def broken(:\n", "\0", "\udcff"])
    def test_a_file_that_is_no_python(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "mine.py").write_bytes(text.encode(errors="surrogateescape"))
        with pytest.raises(StrategyError, match=r"importing mine\.py: \w+Error: "):
            load_strategy("mine.py:Crossing", {}, tmp_path)

    def test_parameters_that_the_class_does_not_take(self, tmp_path: Path) -> None:
        write(tmp_path / "mine.py", CROSSING)
        with pytest.raises(StrategyError, match=r"Crossing\(\): TypeError: .*'quick'"):
            load_strategy("mine.py:Crossing", {"quick": 3}, tmp_path)

    def test_a_file_that_leaves_the_program_is_an_error_too(self, tmp_path: Path) -> None:
        write(tmp_path / "mine.py", "import sys\nsys.exit(0)\n")
        with pytest.raises(StrategyError, match=r"importing mine\.py: SystemExit: 0 .*line 2"):
            load_strategy("mine.py:Crossing", {}, tmp_path)

    def test_an_interrupt_is_nobodys_fault(self, tmp_path: Path) -> None:
        write(tmp_path / "mine.py", "raise KeyboardInterrupt\n")
        with pytest.raises(KeyboardInterrupt):
            load_strategy("mine.py:Crossing", {}, tmp_path)


class TestDescribe:
    def raised(self, code: str, path: Path) -> BaseException:
        """Run `code` as if it were in the file `path`; return what it raises."""
        try:
            exec(compile(dedent(code), str(path), "exec"), {})  # noqa: S102 - plays user code
        except Exception as error:  # noqa: BLE001 - whatever it is
            return error
        pytest.fail("nothing was raised")

    def test_it_is_one_line_with_the_users_own_line(self, tmp_path: Path) -> None:
        path = tmp_path / "mine.py"
        error = self.raised("\n\nraise ValueError('too\\n  long')", path)
        assert describe(error) == f"ValueError: too long ({path}, line 3)"

    def test_an_error_without_words_is_its_type(self, tmp_path: Path) -> None:
        path = tmp_path / "mine.py"
        assert describe(self.raised("assert 0", path)) == f"AssertionError ({path}, line 1)"

    def test_the_line_is_not_one_of_a_library_that_was_called(self, tmp_path: Path) -> None:
        path = tmp_path / "mine.py"
        for call in ("import json\njson.loads('{')", "import numpy\nnumpy.zeros(2).reshape(3)"):
            assert describe(self.raised(call, path)).endswith(f"({path}, line 2)")

    def test_a_folder_whose_name_begins_like_ours_is_not_ours(self) -> None:
        path = Path(strategy_module.__file__).parent.with_name("stream_coord_mine") / "s.py"
        assert describe(self.raised("1 / 0", path)).endswith(f"({path}, line 1)")
