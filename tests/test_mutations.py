"""Whatever is read from outside, broken AYNI_MUTATIONS times (`make torture`: 10,000): sound, or BadInput in one line.

Nothing hangs, fills the memory, ends the process, writes a file or prints a word. What was found is kept by name in
tests/bad_input_cases.py and in the tests of each module.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mutations import MUTATIONS, Format, kept, mutants

from ayni.errors import BadInput

HERE = Path(__file__).parent


@pytest.mark.parametrize("family", ["records", "recipes", "tokenizers", "endpoints"])
@pytest.mark.timeout(60 + 10 * MUTATIONS)
def test_what_is_broken_is_sound_or_one_line(family: str, tmp_path: Path) -> None:
    last = tmp_path / "last"
    environment = os.environ | {"AYNI_LAST_MUTANT": str(last), "PYTHONPATH": f"{HERE.parent}{os.pathsep}{HERE}"}
    command = [sys.executable, str(HERE / "mutations.py"), family]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, f"{ended.stderr[-2000:]}\nafter {last.read_bytes()[:2000]!r}"
    assert ended.stderr == "", ended.stderr[-2000:]
    found = json.loads(ended.stdout)
    assert found == [], "\n\n".join(f"{each['format']}: {each['data']}\n{each['how']}" for each in found[:5])


def test_a_broken_promise_is_seen(tmp_path: Path) -> None:
    """Or the above would prove little."""

    def says(error: BaseException | None, writes: bool = False) -> str | None:
        def read(path: Path) -> None:
            if writes:
                (path.parent / "more").write_bytes(b"")
            if error is not None:
                raise error

        return kept(tmp_path, Format(b"", "a", read), b"")

    assert says(None) is None
    assert says(BadInput("wrong")) is None
    assert "KeyError" in str(says(KeyError("a")))
    assert "RecursionError" in str(says(RecursionError()))
    assert says(BadInput("x", fix="a" * 4000)) is not None
    assert says(None, writes=True) == "wrote something"


def test_mutants_are_always_the_same_and_mostly_different() -> None:
    sound = Format(b'{"a": [1, 2, 3], "b": "text"}', "a", lambda path: None, {"a": [1, 2, 3], "b": "text"})
    first, second = (list(mutants("a", sound, 200)) for _ in range(2))
    assert first == second
    assert len(set(first)) > 150
    assert sum(data != sound.data for data in first) > 180
