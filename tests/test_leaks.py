"""Planted leaks are named by doctor and refused by final evaluations; the village alone has none."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_stages import FIT, comparisons

from ayni import cli
from ayni.errors import BadInput
from ayni.evaluate.results import read_results
from ayni.files import read_json, write_jsonl
from ayni.records import Demonstration, Dialog, Message, Prompt, to_dict
from ayni.report import build_report
from ayni.runs.leaks import Leak, leaks_of
from ayni.runs.lineage import made_by
from ayni.runs.pipeline import run_recipe
from ayni.runs.recipe import read_recipe
from ayni.text.overlap import PromptIndex

SHAPE = {"dim": 16, "layers": 1, "heads": 2, "kv_heads": 1, "hidden": 24, "context": 96, "row_tokens": 64}
FITS = {**FIT, "batch_size": 4}
EVALUATE = {"kind": "evaluate", "max_tokens": 4, "dtype": "fp32", "kl_prompts": 0}
QUESTION = "I have come a long way to ask which of the two mills by the river grinds the finer flour"
ANSWER = "The lower one, they say."
BOOK = " ".join(f"word{i} of the held out book" for i in range(20))


def said(*texts: str) -> Dialog:
    return tuple(Message("assistant" if i % 2 else "user", text) for i, text in enumerate(texts))


# What overlaps

LONG = (
    "Please write a short letter to the miller who lives by the old bridge and ask her politely for two sacks of flour"
)


@pytest.mark.parametrize(
    ("evaluated", "trained", "found"),
    [
        (said("Who sings?"), said("who  sings", "The owl."), ["copy"]),
        (said("Who sings?"), said("Who sings?", "The owl.", "And who dances?", "Nobody."), ["copy"]),
        (said("Who sings?"), said("Who dances?", "The owl."), []),
        (said("What is 5 - 2?"), said("What is 5 + 2?", "Seven."), []),
        (said("What is 5-2?"), said("what is 5-2", "Three."), ["copy"]),
        (said("A well-known mill"), said("a well-known mill!", "Ours."), ["copy"]),
        (said("Who sings?"), said("Hello!", "Hello.", "Who sings?", "The owl."), []),  # short words are anybody's
        (said(QUESTION), said("Hello! " + QUESTION + " Thank you!", ANSWER), ["copy"]),
        (said(LONG + " for the feast of the whole village on the last day of the month"),
         said(LONG + " for the feast of the whole village on the last day of May", "Dear miller"), ["near copy"]),
        (said("Where does Ada live?"), said("Where does Ben live?", "In the mill."), []),
        (said(QUESTION, ANSWER, "And why?"), said(QUESTION, ANSWER, "And the bread?", "Yes."), ["sibling turn"]),
        (said(QUESTION, ANSWER, "And why?"), said(QUESTION, ANSWER), ["sibling turn"]),
        (said("Hello!", "Hello.", "Who sings?"), said("Hello!", "Hello.", "Who dances?", "Nobody."), []),
        (said("Why?"), said(QUESTION, ANSWER, "Why?", "Stones."), []),
    ],
)  # fmt: skip
def test_copies_near_copies_and_siblings(evaluated: Dialog, trained: Dialog, found: list[str]) -> None:
    system = (Message("system", "Be brief."), *trained)
    index = PromptIndex([evaluated])
    assert [how for how, _ in index.in_dialog(trained)] == [how for how, _ in index.in_dialog(system)] == found


# A small village pipeline, clean and with leaks planted


def recipe(folder: Path, **changed: dict[str, Any]) -> Path:
    stages: dict[str, dict[str, Any]] = {
        "village": {"words": 20_000, "demonstrations": 300, "prompts": 200},
        "tokenizer": {"data": ["village"], "vocab_size": 400},
        "base": {"kind": "pretrain", "tokenizer": "tokenizer", "data": ["village"], **FITS, **SHAPE, "tokens": 800},
        "sft": {"model": "base", "data": ["village/demonstrations.jsonl"], **FITS, "epochs": 0.01},
        "final": {**EVALUATE, "model": "sft", "prompts": ["village/prompts-test.jsonl"], "final": True, "limit": 2},
        **changed,
    }
    (folder / "tiny.yaml").write_text(yaml.safe_dump({"name": "tiny", "seed": 3, "stages": stages}, sort_keys=False))
    return folder / "tiny.yaml"


def leaks(run: Path) -> list[Leak]:
    return leaks_of(made_by(run))


def test_a_village_pipeline_leaks_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = {"kind": "collect", "model": "sft", "prompts": ["village"], "limit": 20, "max_tokens": 8, "dtype": "fp32"}
    judge = {"kind": "reward", "model": "sft", "data": ["pairs"], "heldout": ["pairs"], **FITS, "heldout_share": 0.3}
    choose = {**EVALUATE, "model": "sft", "prompts": ["village"], "limit": 2}
    run_recipe(recipe(tmp_path, pairs=pairs, reward=judge, choose=choose), tmp_path / "run", quiet=True)
    assert cli.run(["doctor", str(tmp_path / "run"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["leaks"], found["gone"]) == ([], [])


def test_planted_leaks_are_named_with_stage_file_number_and_example(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [said(QUESTION, ANSWER, "And why?"), said("Who sings at night?"), said(LONG + " " + QUESTION)]
    write_jsonl(tmp_path / "asked.jsonl", [to_dict(Prompt(f"p{i}", dialog)) for i, dialog in enumerate(asked)])
    shown = [
        said("who sings, at night", "The owl."),
        said(LONG + " " + QUESTION.replace("flour", "meal"), "Dear miller"),
        said(QUESTION, ANSWER, "And what of the bread?", "It is good."),
    ]
    write_jsonl(tmp_path / "shown.jsonl", [to_dict(Demonstration(dialog)) for dialog in shown])
    write_jsonl(tmp_path / "book.jsonl", [{"text": BOOK}])
    # the tokenizer reads the held-out book, the base does not
    tokenizer = {"data": ["village", str(tmp_path / "book.jsonl")], "vocab_size": 400}
    base = {"kind": "pretrain", "tokenizer": "tokenizer", "data": tokenizer["data"], **FITS, **SHAPE, "tokens": 800}
    base["heldout"] = [str(tmp_path / "book.jsonl")]
    sft = {
        "model": "base",
        "data": ["village/demonstrations.jsonl", str(tmp_path / "shown.jsonl")],
        **FITS,
        "epochs": 0.01,
    }
    look = {**EVALUATE, "model": "sft", "judge": "judge", "prompts": [str(tmp_path / "asked.jsonl")]}
    look["texts"] = [str(tmp_path / "book.jsonl")]
    pairs = comparisons(8)
    write_jsonl(tmp_path / "held.jsonl", map(to_dict, pairs[:3]))
    write_jsonl(tmp_path / "pairs.jsonl", map(to_dict, pairs))
    data = {"data": [str(tmp_path / "pairs.jsonl")], **FITS}
    judge = {"kind": "reward", "model": "base", **data, "heldout": [str(tmp_path / "held.jsonl")]}
    changed = {"tokenizer": tokenizer, "base": base, "sft": sft, "judge": judge, "dpo": {"model": "sft", **data}}
    run_recipe(recipe(tmp_path, **changed, final=look), tmp_path / "run", quiet=True)
    assert cli.run(["doctor", str(tmp_path / "run")]) == 2
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("leak")]
    found = {(leak.stage.split("-")[1], Path(leak.file).name, leak.how): leak for leak in leaks(tmp_path / "run")}
    assert found.keys() == {
        ("sft", "shown.jsonl", "copy"),
        ("sft", "shown.jsonl", "near copy"),
        ("sft", "shown.jsonl", "sibling turn"),
        ("tokenizer", "book.jsonl", "held-out text"),
        ("dpo", "pairs.jsonl", "held-out conversation"),
    }
    assert len(told) == 5
    leak = found["sft", "shown.jsonl", "copy"]
    assert (leak.input, leak.count, leak.example) == ("data", 1, "Who sings at night?")
    assert leak.evaluated.split("-")[1] == "final"


def test_an_evaluation_knows_what_its_models_were_trained_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dialog = said("Who sings at night?", "The owl.")
    write_jsonl(tmp_path / "shown.jsonl", [to_dict(Demonstration(dialog)), to_dict(Demonstration(said("a", "b")))])
    write_jsonl(tmp_path / "asked.jsonl", [to_dict(Prompt("p", dialog[:1])), to_dict(Prompt("q", said("Who dances?")))])
    sft = {"model": "base", "data": [str(tmp_path / "shown.jsonl")], **FITS}
    after = {"kind": "sft", "model": "sft", "data": ["village/demonstrations.jsonl"], **FITS, "epochs": 0.01}
    write_jsonl(tmp_path / "judged.jsonl", map(to_dict, comparisons(8)))
    judge = {"kind": "reward", "model": "base", "data": [str(tmp_path / "judged.jsonl")], **FITS}
    look = {**EVALUATE, "model": "after", "judge": "judge", "prompts": [str(tmp_path / "asked.jsonl")]}
    stages = {"sft": sft, "after": after, "judge": judge}
    run_recipe(recipe(tmp_path, **stages, final=look), tmp_path / "run")
    assert "trained on 1 of the prompts to evaluate on, for one: Who sings at night?" in capsys.readouterr().err
    with pytest.raises(BadInput, match=r"shown.jsonl: \d+-sft-\w+ trained on 1 of the prompts to evaluate on"):
        run_recipe(recipe(tmp_path, **stages, final={**look, "final": True}), tmp_path / "run", quiet=True)
    known = {**look, "final": True, "seen": [str(tmp_path / "shown.jsonl")]}
    assert run_recipe(recipe(tmp_path, **stages, final=known), tmp_path / "run", quiet=True)["status"] == "done"
    # good answers that it has learnt surprise nobody
    foreseen = {"kind": "evaluate", "model": "after", "demonstrations": [str(tmp_path / "shown.jsonl")], "final": True}
    with pytest.raises(BadInput, match="trained on 2 of the prompts to evaluate on"):
        run_recipe(recipe(tmp_path, **stages, final=foreseen), tmp_path / "run", quiet=True)
    # said to be seen they are left out, not measured all the same
    write_jsonl(tmp_path / "more.jsonl", [to_dict(Demonstration(dialog)), to_dict(Demonstration(said("c", "d")))])
    partly = {**foreseen, "demonstrations": [str(tmp_path / "more.jsonl")], "seen": [str(tmp_path / "shown.jsonl")]}
    run_recipe(recipe(tmp_path, **stages, final=partly), tmp_path / "run", quiet=True)
    assert [row.n for row in read_results(tmp_path / "run" / "results.json") if row.metric == "perplexity"] == [1]
    with pytest.raises(BadInput, match="all demonstrations were seen in training; evaluate on others"):
        run_recipe(recipe(tmp_path, **stages, final={**partly, **foreseen}), tmp_path / "run", quiet=True)


# The sealed test


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ({**EVALUATE, "model": "sft", "prompts": ["village", "village/prompts-test.jsonl"]},
         "stages.final.prompts.1: only a final evaluation opens village/prompts-test.jsonl; "
         "give village/prompts-validation.jsonl, or set `final: true`"),
        ({"kind": "collect", "model": "sft", "prompts": ["village/prompts-test.jsonl"]},
         "stages.final.prompts.0: only a final evaluation opens village/prompts-test.jsonl; "
         "give village/prompts-validation.jsonl"),
    ],
)  # fmt: skip
def test_a_recipe_that_opens_the_test_split_too_early_is_refused(
    tmp_path: Path, stage: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadInput) as caught:
        read_recipe(recipe(tmp_path, final=stage))
    assert str(caught.value).partition(": ")[2] == message


def test_a_final_evaluation_says_what_opened_it(tmp_path: Path) -> None:
    git = ["git", "-C", str(tmp_path), "-c", "user.name=Ayni", "-c", "user.email=a@b.c"]
    path = recipe(tmp_path)
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "tiny.yaml"], check=True)
    subprocess.run([*git, "commit", "-qm", "tiny"], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    run_recipe(path, tmp_path / "run", quiet=True)
    (place,) = (tmp_path / "run" / "stages").glob("*-final-*")
    opened = read_json(place / "opened.json")
    kept = {key: opened[key] for key in ("stage", "recipe", "commit", "changed", "seed")}
    assert kept == {"stage": "final", "recipe": "tiny.yaml", "commit": commit, "changed": False, "seed": 3}
    assert len(opened["prompts"]) == 1
    assert {row["split"] for row in read_json(place / "results.json")["results"]} == {"test"}
    page = build_report(tmp_path / "run").read_text()
    assert f"The test split was opened by final: recipe tiny.yaml, commit {commit[:12]}, seed 3." in page
    # the same prompts by their path, or copied, stay sealed
    sealed = next((tmp_path / "run" / "stages").glob("*-village-*")) / "prompts-test.jsonl"
    argv = ["evaluate", "--model", str(tmp_path / "run" / "sft"), "--out", str(tmp_path / "e"), "--quiet"]
    assert cli.run([*argv, "--prompts", str(sealed)]) == 2
    (tmp_path / "copy.jsonl").write_bytes(sealed.read_bytes())
    assert cli.run([*argv, "--prompts", str(tmp_path / "copy.jsonl")]) == 2
    assert cli.run([*argv, "--prompts", str(sealed.with_name("prompts-validation.jsonl")), "--set", "final=true"]) == 2
    assert not (tmp_path / "e").exists()
    path.write_text(path.read_text() + "# later\n")
    run_recipe(path, tmp_path / "again", sets=["final.limit=3"], quiet=True)
    (place,) = (tmp_path / "again" / "stages").glob("*-final-*")
    assert read_json(place / "opened.json")["changed"] is True


def test_outside_a_repository_no_commit_is_named(tmp_path: Path) -> None:
    run_recipe(recipe(tmp_path), tmp_path / "run", quiet=True)
    (place,) = (tmp_path / "run" / "stages").glob("*-final-*")
    opened = read_json(place / "opened.json")
    assert (opened["commit"], opened["changed"], opened["recipe"]) == (None, None, "tiny.yaml")
