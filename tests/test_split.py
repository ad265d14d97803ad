"""Prompts apart: by conversation, nothing alike on both sides, the test part sealed."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_stages import Small

from ayni.errors import BadInput
from ayni.files import write_jsonl
from ayni.formats.reading import read_prompts
from ayni.records import Dialog, Message, Prompt, root_of, to_dict
from ayni.runs.sealing import read_seal
from ayni.stages.split import Config, parted, unlike
from ayni.text.overlap import PromptIndex

PARTS = ("train", "validation", "test")
LONG = "Please write a long letter to the miller about the flour that he sold us last week, which was full of stones"


def said(*texts: str) -> Dialog:
    return tuple(Message("assistant" if i % 2 else "user", text) for i, text in enumerate(texts))


def some(count: int) -> list[Prompt]:
    """Half as many conversations as prompts: of each a first and a second question."""
    first = [Prompt(f"a{i}", said(f"Who is number {i}?")) for i in range(count // 2)]
    return first + [Prompt(f"b{i}", said(f"who is number {i}", "Somebody.", "And why?")) for i in range(count // 2)]


def split(directory: Path, prompts: list[Prompt], **settings: object) -> dict[str, list[Prompt]]:
    write_jsonl(directory / "asked.jsonl", map(to_dict, prompts))
    Small("split", settings, {"data": [directory / "asked.jsonl"]}).execute(directory / "out")
    files = {name: directory / "out" / f"prompts-{name}.jsonl" for name in PARTS}
    return {name: list(read_prompts(path)) for name, path in files.items() if path.exists()}


def test_every_conversation_stands_in_one_part(tmp_path: Path) -> None:
    prompts = some(80)
    parts = split(tmp_path, prompts)
    assert {name: len(part) for name, part in parts.items()} == {"train": 56, "validation": 8, "test": 16}
    assert sorted(p.id for part in parts.values() for p in part) == sorted(p.id for p in prompts)
    roots = [{root_of(p.dialog) for p in part} for part in parts.values()]
    assert sum(map(len, roots)) == len(set.union(*roots)) == 40


def test_the_seed_alone_parts_them() -> None:
    prompts = some(80)
    there = parted(prompts, Config(), 1)
    again = parted(prompts[::-1], Config(), 1)
    assert {name: {p.id for p in part} for name, part in there.items()} == {
        name: {p.id for p in part} for name, part in again.items()
    }
    assert parted(prompts, Config(), 2) != there


def test_what_resembles_a_held_out_prompt_is_not_trained_on() -> None:
    held = [Prompt("h", said(LONG))]
    others = {
        "copy": said(LONG.upper() + "!"),
        "near": said(LONG + " and of sand"),
        "quoted": said(f"Somebody asked me this: {LONG}. What shall I do?"),
        "other": said("Please write a short note to the baker about bread"),
    }
    assert [p.id for p in unlike([Prompt(name, dialog) for name, dialog in others.items()], held)] == ["other"]


def test_what_is_trained_on_resembles_nothing_held_out(tmp_path: Path) -> None:
    alike = [Prompt(f"l{i}", said(LONG + " and of sand" * (i % 2) + f" {i}")) for i in range(30)]
    parts = split(tmp_path, [*some(40), *alike], test_share=0.5)
    index = PromptIndex([p.dialog for name in ("validation", "test") for p in parts[name]])
    assert not any(hit for p in parts["train"] for hit in index.in_dialog(p.dialog))
    tested = PromptIndex([p.dialog for p in parts["test"]])
    assert not any(hit for p in parts["validation"] for hit in tested.in_dialog(p.dialog))
    assert sum(map(len, parts.values())) < 70


def test_whose_guidelines_judge_can_be_said(tmp_path: Path) -> None:
    parts = split(tmp_path, [*some(20), Prompt("s", said("How do I hide?"), "safety", "danger")], task="safety")
    assert {p.task for part in parts.values() for p in part} == {"safety"}
    assert "danger" in {p.category for part in parts.values() for p in part}


def test_a_share_of_none_leaves_no_file(tmp_path: Path) -> None:
    assert split(tmp_path, some(20), validation_share=0, test_share=0.5).keys() == {"train", "test"}
    assert read_seal(tmp_path / "out") is not None


def test_too_few_prompts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"asked\.jsonl: no prompt is left for test; give more prompts"):
        split(tmp_path, some(4))
    assert not list((tmp_path / "out").glob("prompts-*"))
    with pytest.raises(BadInput, match="nothing is left to train on; hold less out"):
        split(tmp_path, some(20), validation_share=0.5, test_share=0.5)
