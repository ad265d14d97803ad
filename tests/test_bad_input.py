"""Every malformed file gives one line that names the file, the line and the field, and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from bad_input_cases import CASES, Case
from hostile_cases import HOSTILE

from ayni.errors import BadInput
from ayni.formats.reading import read_comparisons, read_demonstrations, read_prompts, read_texts
from ayni.text.tokenizer import load_tokenizer

READERS = {
    "demonstrations": read_demonstrations,
    "comparisons": read_comparisons,
    "prompts": read_prompts,
    "texts": lambda path: list(read_texts(path)),
    "tokenizer": load_tokenizer,
}


@pytest.mark.parametrize("case", [*CASES, *HOSTILE], ids=lambda case: case.name)
def test_bad_input_is_one_clear_line(case: Case, tmp_path: Path) -> None:
    path = case.make(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(BadInput) as caught:
        READERS[case.reader](path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    assert case.says.replace("PATH", str(path)) in message
    assert sorted(tmp_path.rglob("*")) == before


def test_names_are_unique_and_many() -> None:
    names = [case.name for case in [*CASES, *HOSTILE]]
    assert len(set(names)) == len(names) >= 200
