"""The command line as a user meets it: contracts, exit codes, one-line errors, quiet pipes, interrupts."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import test_pipeline
import torch
from rich.console import Console

from ayni import cli
from ayni.cli import chat as chat_module
from ayni.cli.environment import prepare
from ayni.cli.generate import _print_continuation, _rows
from ayni.cli.inspect import _paint_values
from ayni.cli.lines import write_lines
from ayni.cli.recipe import table
from ayni.errors import BadInput
from ayni.files import write_jsonl
from ayni.interruption import Interrupted
from ayni.introduction import Introduction
from ayni.model.score_head import with_score_head
from ayni.model.shape import Shape
from ayni.model.transformer import Transformer, initialise
from ayni.model_directory import save_model
from ayni.records import Message, TokenSequence
from ayni.reward.model import load_reward
from ayni.rollout.engine import Request
from ayni.rollout.sampling import Sampling
from ayni.runs.sealing import seal_directory
from ayni.text.chat import render, render_prompt
from ayni.text.tokenizer import Tokenizer, load_tokenizer, train_tokenizer

WORDS = "the miller bakes bread and the river sings to every child who asks a question about the old mill\n"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny untrained model `m`, a reward model `rm`, and files to feed them."""
    torch.set_num_threads(1)
    here = tmp_path_factory.mktemp("cli")
    tokenizer = train_tokenizer([WORDS * 20], 300)
    shape = Shape(dim=16, layers=1, heads=2, kv_heads=1, hidden=32, vocab=tokenizer.vocab_size, context=96)
    model = initialise(Transformer(shape), 0)
    save_model(here / "m", model, tokenizer)
    save_model(here / "rm", with_score_head(model, 0), tokenizer)
    user = {"role": "user", "content": "who sings"}
    rows = [{"text": "the miller"}, {"messages": [user]}]
    (here / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pairs = [
        {"prompt": "who sings", "chosen": "the river", "rejected": "no", "rating": rating}
        for rating in ("better", "better", "slightly_better")
    ]
    (here / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    dialog = {"messages": [user, {"role": "assistant", "content": "the river"}]}
    (here / "dialogs.jsonl").write_text(json.dumps(dialog) + "\n")
    return here


@pytest.fixture
def tokenizer(directory: Path) -> Tokenizer:
    return load_tokenizer(directory / "m")


@pytest.fixture(autouse=True)
def _inside(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(directory)


def call(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str, str]:
    capsys.readouterr()
    code = cli.run([str(word) for word in argv])
    out, err = capsys.readouterr()
    return code, out, err


def ok(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    code, out, err = call(capsys, *argv)
    assert code == 0, err
    return out


def test_help_names_every_verb_without_loading_torch() -> None:
    code = "import sys, ayni.cli; c = ayni.cli.run(['--help']); assert 'torch' not in sys.modules; sys.exit(c)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    makes = ["run", "tokenizer", "pretrain", "sft", "reward", "reject", "ppo", "evaluate"]
    for verb in [*makes, "chat", "generate", "score", "inspect", "encode", "report", "import", "export", "doctor"]:
        assert f" {verb} " in done.stdout, verb


def test_module_entry_and_version() -> None:
    done = subprocess.run([sys.executable, "-m", "ayni", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == "0.1.0\n"


def test_every_stage_verb_shows_its_inputs_and_settings(capsys: pytest.CaptureFixture[str]) -> None:
    out = ok(capsys, "sft", "--help")
    for word in ("--model", "--data", "--out", "--config", "--set", "--seed", "--fresh", "--dry-run", "--quiet"):
        assert word in out
    assert "\n   optimiser.lr = 2e-05  peak learning rate" in out
    assert "\n   epochs = 2" in out
    assert "--judge" in ok(capsys, "evaluate", "--help")


def test_encode(capsys: pytest.CaptureFixture[str], tokenizer: Tokenizer) -> None:
    text, prompt = map(json.loads, ok(capsys, "encode", "m", "prompts.jsonl").splitlines())
    ids = tokenizer.encode("the miller")
    assert text == {"index": 0, "tokens": ids, "mask": [True] * len(ids)}
    open_turn = render_prompt((Message("user", "who sings"),), tokenizer)
    assert prompt == {"index": 1, "tokens": open_turn, "mask": [False] * len(open_turn)}
    whole = json.loads(ok(capsys, "encode", "m", "dialogs.jsonl", "--json"))["rows"][0]
    expected = render((Message("user", "who sings"), Message("assistant", "the river")), tokenizer)
    assert (whole["tokens"], whole["mask"]) == (expected.tokens, expected.mask)


def test_generate_lines(capsys: pytest.CaptureFixture[str], tokenizer: Tokenizer) -> None:
    argv = ("generate", "m", "--prompts", "prompts.jsonl", "--n", 2, "--max-tokens", 5, "--seed", 3)
    rows = [json.loads(line) for line in ok(capsys, *argv).splitlines()]
    assert [(row["index"], row["sample"]) for row in rows] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    for row in rows:
        assert list(row) == [
            "index", "sample", "prompt_tokens", "tokens", "logprobs", "text", "finish_reason", "seed",
        ]  # fmt: skip
        assert len(row["tokens"]) == len(row["logprobs"]) <= 5
        assert row["finish_reason"] == ("stop" if row["tokens"][-1] == tokenizer.eos else "length")
        assert all(logprob <= 0 for logprob in row["logprobs"])
    assert rows[0]["prompt_tokens"] == [tokenizer.bos, *tokenizer.encode("the miller")]
    assert rows[0]["tokens"] != rows[1]["tokens"]
    assert [json.loads(line) for line in ok(capsys, *argv).splitlines()] == rows
    summary = json.loads(ok(capsys, *argv, "--output", "out.jsonl", "--json"))
    assert summary == {"n": 4, "output": "out.jsonl"}
    assert [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()] == rows


def test_generate_text_prints_only_the_continuation(capsys: pytest.CaptureFixture[str], tokenizer: Tokenizer) -> None:
    argv = ("generate", "m", "--temperature", 0, "--max-tokens", 8)
    for text in ("", "the miller", "the"):
        row = json.loads(ok(capsys, *argv, "--text", text, "--json"))["rows"][0]
        printed = ok(capsys, *argv, "--text", text)
        assert printed == row["text"]
        assert row["prompt_tokens"] == [tokenizer.bos, *(tokenizer.encode(text) if text else [])]
        plain = [id for id in row["tokens"] if id != tokenizer.eos]
        assert tokenizer.decode(row["prompt_tokens"] + plain) == text + printed


def test_score_comparisons_and_dialogs(capsys: pytest.CaptureFixture[str]) -> None:
    summary = json.loads(ok(capsys, "score", "rm", "pairs.jsonl", "--output", "scores.jsonl", "--json"))
    rows = [json.loads(line) for line in Path("scores.jsonl").read_text().splitlines()]
    assert [list(row) for row in rows] == [["index", "chosen", "rejected", "rating"]] * 3
    right = float(rows[0]["chosen"] > rows[0]["rejected"])
    assert (summary["n"], summary["accuracy"]) == (3, right)
    assert summary["by_rating"]["better"]["n"] == 2
    assert (summary["clusters"], summary["interval"]) == (1, None)  # one prompt tells nothing about another
    single = json.loads(ok(capsys, "score", "rm", "dialogs.jsonl"))
    assert single == {"index": 0, "score": pytest.approx(rows[0]["chosen"], abs=1e-5)}


def test_inspect(capsys: pytest.CaptureFixture[str], tokenizer: Tokenizer) -> None:
    found = json.loads(ok(capsys, "inspect", "dialogs.jsonl", "--model", "m", "--json"))
    assert found.keys() >= {
        "path", "format", "records", "turns", "errors", "tokens", "unsupervised", "without_eos", "truncated",
    }  # fmt: skip
    assert (found["records"], found["turns"], found["errors"]) == (1, 1, [])
    out = ok(capsys, "inspect", "dialogs.jsonl", "--model", "m")
    assert "records              1" in out
    assert out.endswith("\n<s> [INST] who sings [/INST] the river </s>\n")


def test_inspect_values_every_prefix(capsys: pytest.CaptureFixture[str], tokenizer: Tokenizer, directory: Path) -> None:
    found = json.loads(ok(capsys, "inspect", "pairs.jsonl", "--model", "m", "--critic", "rm", "--show", 1, "--json"))
    assert [shown["record"] for shown in found["prefixes"]] == [0, 0]
    dialog = (Message("user", "who sings"), Message("assistant", "the river"))
    tokens = render(dialog, tokenizer).tokens
    shown = found["prefixes"][0]
    assert shown["pieces"] == [tokenizer.piece(token) for token in tokens]
    expected = load_reward(directory / "rm").score_tokens([tokens[: n + 1] for n in range(len(tokens))])
    assert shown["values"] == pytest.approx(expected.tolist(), abs=1e-5)
    out = ok(capsys, "inspect", "pairs.jsonl", "--critic", "rm", "--show", 1)
    assert f"of the whole {expected[-1]:.3f}\n" in out
    assert f"{expected[-1]:10.3f}  </s>\n" in out  # no terminal, no colours: the numbers
    assert ok(capsys, "inspect", "pairs.jsonl", "--critic", "rm", "--show", 1, "--max-tokens", 9).count("of the whole")


def test_inspect_draws_what_it_paints(
    capsys: pytest.CaptureFixture[str], tokenizer: Tokenizer, directory: Path
) -> None:
    argv = ("inspect", "pairs.jsonl", "--critic", "rm", "--show", 1, "--svg", "values.svg", "--json")
    found = json.loads(ok(capsys, *argv))
    assert found["svg"] == "values.svg"
    drawn = ElementTree.parse(directory / "values.svg").getroot()
    numbers = [t.text for t in drawn.iterfind("{*}text") if t.get("class") == "n"]
    expected = []
    for shown, answer in zip(found["prefixes"], ("the river", "no"), strict=True):
        # from the prompt's last token on: what is expected before the answer's first one
        asked = render((Message("user", "who sings"), Message("assistant", answer)), tokenizer).mask.index(True)
        expected += [f"{value:z.2f}" for value in shown["values"][asked - 1 :]]
    assert numbers == expected
    (directory / "values.svg").unlink()


@pytest.mark.parametrize("how", [{"no_color": True}, {"color_system": None}], ids=["NO_COLOR", "a terminal without"])
def test_without_colours_a_terminal_lists_the_values(tokenizer: Tokenizer, how: dict[str, Any]) -> None:
    answer = tokenizer.encode("the river")[:2]
    sequence = TokenSequence([tokenizer.bos, *answer], [False, True, True])
    said = {}
    for name, options in (("with", {"color_system": "truecolor"}), ("without", how)):
        console = Console(file=io.StringIO(), force_terminal=True, highlight=False, **options)
        _paint_values(sequence, [0.0, -0.5, 1.5], tokenizer, console)
        said[name] = console.file.getvalue()
    assert "    -0.500  " in said["without"]
    assert "    -0.500  " not in said["with"]
    assert "\x1b[38;2;0;0;0;48;2;100;165;235m" in said["with"]
    assert "48;" not in said["without"]


def test_doctor_reads_the_machine(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(ok(capsys, "doctor", "--json"))
    assert found["python"] == sys.version.split()[0]
    assert found["memory_gb"] > 0.1
    assert found["dependencies"]["torch"].startswith("2.13.0")
    assert "python" in ok(capsys, "doctor")


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("ayni.stages.fakerecords", "ayni.stages.fakefit"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    test_pipeline.install()
    path = tmp_path / "tiny.yaml"
    (tmp_path / "source.txt").write_text("hello ")
    path.write_text(test_pipeline.RECIPE)
    return path


def test_run_json_is_the_contract(capsys: pytest.CaptureFixture[str], recipe: Path) -> None:
    out = recipe.parent / "run"
    code, text, err = call(capsys, "run", recipe, "--out", out, "--json")
    assert code == 0
    summary = json.loads(text)
    assert list(summary) == ["run", "status", "stages", "results", "claims"]
    assert (summary["run"], summary["status"]) == (str(out), "done")
    for stage in summary["stages"]:
        assert list(stage) == ["name", "kind", "directory", "hash", "state", "seconds"]
        assert (Path(stage["directory"]) / "DONE.json").is_file()
    assert "[1/4] make: ran" in err
    again = json.loads(ok(capsys, "run", recipe, "--out", out, "--json"))
    assert {stage["state"] for stage in again["stages"]} == {"reused"}
    plan = ok(capsys, "run", recipe, "--out", out, "--dry-run", "--set", "make.times=5")
    assert [line.split()[:2] for line in plan.splitlines()] == [
        ["pending", "make"], ["reused", "other"], ["pending", "fit"], ["pending", "again"],
    ]  # fmt: skip
    code, text, err = call(capsys, "run", recipe, "--out", out, "--quiet")
    assert (code, text) == (0, "")  # no metric here is a headline
    assert err.splitlines()[:2] == [f"all numbers: {out}/results.json", f"report: {out}/report/index.html"]
    assert err.splitlines()[2].endswith(f" chat {out}")


def test_headlines_are_a_table_of_what_matters() -> None:
    win = {"metric": "win_rate", "axis": "safety", "model": "ppo", "against": "sft", "interval": [0.5, 0.75], "n": 40}
    assert table(
        [
            {**win, "value": 0.625},
            {**win, "value": 0.625},
            {**win, "metric": "win_rate_half", "value": 0.6},
            {**win, "axis": "helpfulness", "value": None},
            {"metric": "kl", "model": "ppo", "against": "sft", "value": 1.234567},
            {"metric": "bits_per_byte", "model": "base", "value": 2.0, "interval": [1.9, 2.1], "n": 3},
        ]
    ) == [
        "win rate                      safety  ppo against sft  62.5%  50.0 to 75.0  n 40",
        "KL, nats per answer                   ppo against sft  1.23",
        "bits per byte, held-out text          base             2.00   1.90 to 2.10  n 3",
    ]


def test_headlines_say_how_many_clusters_and_when_they_are_too_few() -> None:
    rate = {"metric": "accuracy", "axis": "safety", "value": 0.625, "n": 1337}
    lines = table(
        [
            {**rate, "interval": [0.5, 0.75], "clusters": 212},
            {**rate, "clusters": 4, "wins": 900, "ties": 37, "losses": 400},
            {**rate, "interval": [0.5, 0.75], "clusters": 1337},
            rate,
        ]
    )
    assert [line.partition("62.5%  ")[2].split("  ", 1) for line in lines] == [
        ["50.0 to 75.0", "           n 1,337 in 212 clusters"],
        ["too few for an interval", "900 won, 37 tied, 400 lost in 4 clusters"],
        ["50.0 to 75.0", "           n 1,337"],
        ["", "                       n 1,337"],
    ]


def test_a_run_talks_with_the_model_it_is_about(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, directory: Path
) -> None:
    stages = [("sft", "sft", []), ("ppo", "ppo", ["sft"]), ("control", "sft", ["sft"])]
    status = {
        "run": "r",
        "status": "done",
        "stages": [
            {"name": name, "kind": kind, "directory": f"stages/{name}", "state": "ran", "inputs": {"model": reads}}
            for name, kind, reads in stages
        ],
    }
    for name, _, _ in stages[:2]:
        shutil.copytree(directory / "m", tmp_path / "stages" / name / "model")
        seal_directory(tmp_path / "stages" / name, seconds=0, hash="", kind=name, version=1, config={}, seed=0)
    (tmp_path / "status.json").write_text(json.dumps(status))
    code, out, err = call(capsys, "generate", tmp_path, "--text", "the", "--max-tokens", 4)
    assert (code, err) == (0, f"{tmp_path}: the model of the stage ppo\n")
    assert out == ok(capsys, "generate", "m", "--text", "the", "--max-tokens", 4)
    assert ok(capsys, "encode", tmp_path / "sft", "prompts.jsonl") == ok(capsys, "encode", "m", "prompts.jsonl")
    assert "nope: no such model directory" in call(capsys, "generate", tmp_path / "nope", "--text", "")[2]
    wrong = call(capsys, "score", tmp_path, "pairs.jsonl")[2]
    assert wrong == f"{tmp_path}: is a whole run; name one of its stages: {tmp_path}/sft, {tmp_path}/ppo\n"
    shutil.copy(directory / "pairs.jsonl", tmp_path / "stages" / "sft" / "records.jsonl")
    assert json.loads(ok(capsys, "inspect", tmp_path / "sft" / "records.jsonl", "--json"))["records"] == 3
    shutil.rmtree(tmp_path / "stages")
    assert "no stage of this run has made a model that talks" in call(capsys, "chat", tmp_path)[2]


def test_a_failed_run_still_prints_one_object(capsys: pytest.CaptureFixture[str], recipe: Path) -> None:
    (recipe.parent / "source.txt").write_text("poison")
    code, text, err = call(capsys, "run", recipe, "--out", recipe.parent / "run", "--json")
    summary = json.loads(text)
    assert (code, summary["status"], summary["exit_code"]) == (2, "failed", 2)
    assert [stage["state"] for stage in summary["stages"]] == ["ran", "ran", "failed", "pending"]
    assert err.splitlines()[-1] == summary["error"]


def test_doctor_verifies_a_run(capsys: pytest.CaptureFixture[str], recipe: Path) -> None:
    run = recipe.parent / "run"
    ok(capsys, "run", recipe, "--out", run, "--quiet")
    assert {stage["state"] for stage in json.loads(ok(capsys, "doctor", run, "--json"))["stages"]} == {"whole"}
    weights = next(run.glob("stages/*-fit-*/model/weights"))
    weights.write_text(weights.read_text()[::-1])
    code, out, err = call(capsys, "doctor", run)
    assert code == 2
    assert "model/weights has changed" in out
    assert err.count("\n") == 1


def test_a_stage_verb_runs_reuses_and_plans(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(WORDS * 20)
    (tmp_path / "c.yaml").write_text("vocab_size: 310\n")
    argv = ("tokenizer", "--data", tmp_path / "text.txt", "--out", tmp_path / "tok", "--quiet")
    plan = json.loads(ok(capsys, *argv, "--set", "vocab_size=300", "--dry-run", "--json"))
    assert (plan["state"], (tmp_path / "tok").exists()) == ("pending", False)
    ran = json.loads(ok(capsys, *argv, "--set", "vocab_size=300", "--json"))
    assert (ran["stage"], ran["state"], ran["hash"]) == ("tokenizer", "ran", plan["hash"])
    assert json.loads(ok(capsys, *argv, "--set", "vocab_size=300", "--json"))["state"] == "reused"
    code, _, err = call(capsys, *argv, "--config", tmp_path / "c.yaml")
    assert code == 2
    assert "--fresh" in err
    assert ok(capsys, *argv, "--config", tmp_path / "c.yaml", "--fresh").startswith("tokenizer: ran")
    assert load_tokenizer(tmp_path / "tok" / "tokenizer").vocab_size == 310
    assert json.loads(ok(capsys, "encode", tmp_path / "tok", "prompts.jsonl").splitlines()[0])["index"] == 0


BAD = {
    "no such verb": (["nope"], "No such command 'nope'"),
    "no argument": (["run"], "Missing argument 'recipe'; see ayni run --help"),
    "no option": (["generate", "m", "--oops"], "No such option: --oops"),
    "bad number": (["generate", "m", "--text", "x", "--temperature", "hot"], "--temperature"),
    "negative temperature": (["generate", "m", "--text", "x", "--temperature", "-1"], "--temperature"),
    "zero samples": (["generate", "m", "--text", "x", "--n", "0"], "--n"),
    "both prompts and text": (["generate", "m", "--text", "x", "--prompts", "p"], "either --prompts FILE or --text"),
    "neither": (["generate", "m"], "either --prompts FILE or --text"),
    "no model": (["generate", "nope", "--text", "x"], "nope: no such model"),
    "a reward model speaks": (["generate", "rm", "--text", "x"], "this is a reward model"),
    "a language model scores": (["score", "m", "pairs.jsonl"], "m: is a language model, but a reward model is"),
    "long prompt": (["generate", "m", "--text", "the mill " * 99], "tokens, the model's context 96; shorten it"),
    "no prompts file": (["generate", "m", "--prompts", "nope.jsonl"], "nope.jsonl: no such file"),
    "scoring prompts": (["score", "rm", "prompts.jsonl"], "prompts.jsonl"),
    "no recipe": (["run", "nope.yaml"], "nope.yaml: no such file"),
    "recipe is a directory": (["run", "m"], "m: is a directory, not a file"),
    "bad set": (["tokenizer", "--data", "pairs.jsonl", "--out", "o", "--set", "vocab=1"], "vocab: unknown key"),
    "bad type": (["tokenizer", "--data", "pairs.jsonl", "--out", "o", "--set", "vocab_size=big"], "vocab_size: Input"),
    "set without value": (["tokenizer", "--data", "pairs.jsonl", "--out", "o", "--set", "x"], "expected KEY=VALUE"),
    "missing data": (["tokenizer", "--data", "nope", "--out", "o"], "nope: no such file"),
    "missing config": (["tokenizer", "--data", "pairs.jsonl", "--out", "o", "--config", "n"], "n: no such file"),
    "no input": (["tokenizer", "--out", "o"], "Missing option '--data'"),
    "foreign out": (["tokenizer", "--data", "prompts.jsonl", "--out", "m"], "m: holds files that are no stage's"),
    "out is a file": (["tokenizer", "--data", "prompts.jsonl", "--out", "pairs.jsonl"], "is a file, not a directory"),
    "judge": (
        ["evaluate", "--model", "m", "--judge", "x", "--prompts", "prompts.jsonl", "--out", "o"],
        "--judge: x: no such",
    ),
    "export format": (["export", "m", "o", "--format", "zip"], "--format"),
    "import nothing": (["import", "nope", "o"], "nope: no such file"),
    "doctor of nothing": (["doctor", "nope"], "nope: neither a run nor a stage"),
    "report of nothing": (["report", "m"], "m: not a run"),
    "best of without reward": (["chat", "m", "--best-of", "4"], "--best-of N and --reward RM go together"),
    "generate best of without reward": (["generate", "m", "--text", "x", "--best-of", "4"], "--best-of N and --reward"),
    "a search that asks nobody": (["chat", "m", "--search", "beam"], "--search asks a --reward RM or a --critic"),
    "a search for the best of several": (
        ["chat", "m", "--search", "beam", "--best-of", "2", "--reward", "rm"],
        "an answer is the best of N (--best-of) or what a --search finds",
    ),
    "a critic of nothing": (
        ["chat", "m", "--critic", "rm", "--best-of", "2", "--reward", "rm"],
        "a --critic guides a --search",
    ),
    "a search no one knows": (["chat", "m", "--search", "deep", "--reward", "rm"], "--search"),
    "several of the best": (
        ["generate", "m", "--prompts", "prompts.jsonl", "--n", "2", "--best-of", "2", "--reward", "rm"],
        "--n: one answer is chosen for every prompt",
    ),
    "the best continuation": (
        ["generate", "m", "--text", "x", "--best-of", "2", "--reward", "rm"],
        "an answer is chosen to a dialogue, not to a text",
    ),
    "a language model as critic": (["inspect", "pairs.jsonl", "--critic", "m"], "m: is a language model, but a reward"),
    "a picture without a critic": (["inspect", "pairs.jsonl", "--svg", "v.svg"], "svg: a picture shows what a critic"),
    "a picture over data": (
        ["inspect", "pairs.jsonl", "--critic", "rm", "--svg", "pairs.jsonl"],
        "pairs.jsonl: svg: is written as an SVG; give it a name that ends in .svg",
    ),
    "inspect nothing": (["inspect", "nope.jsonl"], "nope.jsonl: no such file"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_exit_2_and_nothing_written(
    capsys: pytest.CaptureFixture[str], directory: Path, name: str
) -> None:
    argv, message = BAD[name]
    before = sorted(directory.rglob("*"))
    code, out, err = call(capsys, *argv)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1, err
    assert message in err
    assert sorted(directory.rglob("*")) == before


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": 3}', "lines.jsonl:1: text: expected text"),
        ('{"text": "a"}\n{"txt": "b"}', 'lines.jsonl:2: expected {"text"'),
        ('{"text": "a", "messages": []}', "lines.jsonl:1: expected"),
        ('{"messages": [{"role": "user"}]}', "lines.jsonl:1: dialog.0.content: "),
        ('{"messages": [{"role": "user", "content": "[INST]"}]}', "lines.jsonl:1: messages.0.content: "),
        ('{"text": "a"', "lines.jsonl:1: not JSON"),
        ("", "lines.jsonl:1: the file is empty"),
    ],
)
def test_bad_lines_name_their_place(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, line: str, message: str
) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text(line)
    for argv in (("encode", "m", path), ("generate", "m", "--prompts", path)):
        code, out, err = call(capsys, *argv)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert message in err


def test_json_errors_are_one_object_too(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys, "inspect", "nope.jsonl", "--json")
    assert (code, json.loads(out)) == (2, {"error": err.strip(), "exit_code": 2})


def test_inspect_ends_with_two_where_nothing_is_usable(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    sound = {"prompt": "Who sings?", "chosen": "The river.", "rejected": "No."}
    wrong, same = {**sound, "rating": "good"}, {**sound, "rejected": "The river. "}
    for rows, strict, code, said in (
        ([sound, same], [], 0, ""),
        ([sound, same], ["--strict"], 0, ""),
        ([sound, wrong], [], 0, ""),
        ([sound, wrong], ["--strict"], 2, "data.jsonl: 1 of its rows is wrong\n"),
        ([wrong, wrong, same], [], 2, "data.jsonl: 2 of its rows are wrong, and none is usable\n"),
        ([same], [], 2, "data.jsonl: holds no comparisons (left out: 1 × the answers are the same)\n"),
    ):
        write_jsonl(tmp_path / "data.jsonl", rows)
        found, out, err = call(capsys, "inspect", tmp_path / "data.jsonl", *strict)
        assert (found, err.removeprefix(f"{tmp_path}/")) == (code, said)
        if same in rows and sound in rows:
            assert "left out: the answers are the same 1" in out
        if wrong in rows:
            assert f"line {rows.index(wrong) + 1}: rating: " in out
    write_jsonl(tmp_path / "data.jsonl", [wrong])
    code, out, _ = call(capsys, "inspect", tmp_path / "data.jsonl", "--json")
    shown = json.loads(out)
    assert (code, shown["exit_code"], shown["records"], len(shown["errors"])) == (2, 2, 0, 1)


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (MemoryError(), 3, "not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"), 3, "not enough memory"),
        (OSError(28, "No space left on device", "f"), 3, "f: no space left"),
        (PermissionError(13, "Permission denied", "f"), 2, "f: Permission denied"),
        (Interrupted(signal.SIGINT), 130, "interrupted\n"),
        (Interrupted(signal.SIGTERM), 143, "interrupted\n"),
    ],
)
def test_exit_codes(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    code: int,
    message: str,
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("ayni.cli.doctor.doctor", fail)
    assert call(capsys, "doctor")[0] == code
    assert message in call(capsys, "doctor")[2]


def test_an_interrupt_that_turns_into_another_error_is_still_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def half_imported(*_: object) -> None:
        with contextlib.suppress(BaseException):
            signal.raise_signal(signal.SIGINT)
        raise AttributeError("partially initialized module 'torch'")

    monkeypatch.setattr("ayni.cli.doctor.doctor", half_imported)
    assert call(capsys, "doctor") == (130, "", "interrupted\n")


def test_a_bug_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("ayni.cli.doctor.doctor", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        cli.run(["doctor"])


SLOW = """
import sys, time; sys.path[:0] = [{tests!r}]
import test_pipeline, ayni.cli
test_pipeline.install()
def slow(config, inputs, run):
    print("started", flush=True)
    time.sleep(60)
if sys.argv.pop(1) == "slow":
    sys.modules["ayni.stages.fakerecords"].run = slow
ayni.cli.main()
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_with_one_line_and_the_same_command_continues(
    recipe: Path, number: signal.Signals, code: int
) -> None:
    program = [sys.executable, "-c", SLOW.format(tests=str(Path(__file__).parent))]
    argv = ["run", str(recipe), "--out", str(recipe.parent / "run"), "--quiet"]
    child = subprocess.Popen([*program, "slow", *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "started\n"
    child.send_signal(number)
    _, err = child.communicate(timeout=30)
    assert (child.returncode, err) == (code, f"{cli.CONTINUES}\n")
    status = json.loads((recipe.parent / "run" / "status.json").read_text())
    assert (status["status"], status["stages"][0]["state"]) == ("interrupted", "interrupted")
    assert subprocess.run([*program, "go", *argv], capture_output=True, check=False).returncode == 0


def test_a_closed_pipe_is_quiet(directory: Path) -> None:
    many = directory / "many.jsonl"
    many.write_text('{"text": "the miller bakes bread"}\n' * 20000)
    program = [sys.executable, "-m", "ayni", "encode", "m", str(many)]
    child = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stderr is not None
    assert json.loads(child.stdout.readline())["index"] == 0
    child.stdout.close()
    assert child.stderr.read() == ""
    child.stderr.close()
    assert child.wait(timeout=30) == 141
    many.unlink()


def talk(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, typed: str, *options: str
) -> tuple[str, str]:
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    code, out, err = call(capsys, "chat", "m", "--max-tokens", "6", *options)
    assert code == 0, err
    return out, err


def test_chat_from_a_pipe(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = talk(capsys, monkeypatch, "who sings\n/help\nwhat [INST] is\n\n/quit\nunheard\n")
    assert len(out.split("\n")) >= 2
    assert "/undo" in err
    assert "must not contain [INST]" in err
    assert talk(capsys, monkeypatch, "who sings\n/clear\n")[0] == out
    assert talk(capsys, monkeypatch, "who sings\n", "--seed", "5", "--temperature", "3")[0] != out


def test_chat_begins_with_what_the_model_knows(
    capsys: pytest.CaptureFixture[str], directory: Path, tmp_path: Path
) -> None:
    chat_module.greet(directory / "m")
    assert "try:" not in capsys.readouterr().err
    shutil.copytree(directory / "m", tmp_path / "m")
    extra = Introduction("songs\x1b[2J", ("Who sings?", "What is a song?")).extra()
    (tmp_path / "m" / "ayni.json").write_text(json.dumps(extra))
    chat_module.greet(tmp_path / "m")
    err = capsys.readouterr().err
    assert "it knows songs[2J" in err  # no escape from a file drives the terminal
    assert "try: Who sings?" in err
    (tmp_path / "m" / "ayni.json").write_text('{"introduction": {"about": 3}}')
    with pytest.raises(BadInput, match="about"):
        chat_module.greet(tmp_path / "m")


def test_chat_best_of(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    _, err = talk(capsys, monkeypatch, "who sings\n", "--best-of", "3", "--reward", "rm")
    assert "(best of 3: " in err


def test_chat_searches(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for options in (["--search", "beam", "--width", "1"], ["--search", "tree", "--budget", "300", "--critic", "rm"]):
        out, err = talk(capsys, monkeypatch, "who sings\n", "--reward", "rm", *options)
        assert out.strip()
        assert re.search(r"\((beam 1×2|tree 2 ways, 300 tokens by critic): -?\d+\.\d\d; .* \d+ tokens\)", err), err


def test_generate_gives_the_best_of_several(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The samples that `--n` would give, and of each prompt the one that the reward model likes best."""
    lines = [{"messages": [{"role": "user", "content": text}]} for text in ("who sings", "the mill")]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    shared = ["generate", "m", "--prompts", tmp_path / "p.jsonl", "--temperature", 2, "--max-tokens", 6, "--json"]
    _, out, _ = call(capsys, *shared, "--n", 4)
    drawn = json.loads(out)["rows"]
    code, out, _ = call(capsys, *shared, "--best-of", 4, "--reward", "rm")
    assert code == 0
    for row in json.loads(out)["rows"]:
        group = [each for each in drawn if each["index"] == row["index"]]
        texts = [each["text"] for each in group]
        ended = [k for k, each in enumerate(group) if each["finish_reason"] == "stop"] or range(4)
        assert row["text"] == texts[max(ended, key=lambda k, row=row: row["rewards"][k])]
        assert row["reward"] == row["rewards"][texts.index(row["text"])]
        assert row["tokens_drawn"] == sum(len(each["tokens"]) for each in group)
        assert row["tokens_spent"] == 5 * len(row["prompt_tokens"]) + 2 * row["tokens_drawn"]
    code, out, _ = call(capsys, *shared, "--search", "tree", "--budget", 400, "--reward", "rm")
    assert code == 0
    assert [row["index"] for row in json.loads(out)["rows"]] == [0, 1]
    # in two steps of 3 the prompt is read once more
    spent = []
    for steps in (["--step", 3], ["--step", 6]):
        _, out, _ = call(capsys, *shared, "--search", "beam", "--width", 1, "--reward", "rm", "--no-sentences", *steps)
        spent.append(sum(row["tokens_spent"] for row in json.loads(out)["rows"]))
    assert spent[0] > spent[1]


def conversation(pieces: list[str], monkeypatch: pytest.MonkeyPatch, directory: Path, seen: list[object]) -> object:
    def stream(engine: object, dialog: object, **_: object) -> Iterator[str]:
        seen.append(dialog)
        for piece in pieces:
            if piece == "^C":
                raise KeyboardInterrupt
            yield piece

    monkeypatch.setattr(chat_module, "stream", stream)
    engine = chat_module.language_engine(directory / "m")
    return chat_module.Conversation(engine, chat_module.Sampling(max_tokens=4), 0, "", None)


def test_chat_keeps_turns_undoes_and_sets_the_system(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, directory: Path
) -> None:
    seen: list[tuple[Message, ...]] = []
    talk = conversation(["a ", "\x1b[31mb\x07"], monkeypatch, directory, seen)
    lines = iter(["x\n", "y\n", "/undo\n", "z\n", "/system be kind\n", "w\n"])
    talk.hold(lambda: next(lines, None))
    assert [[m.content for m in dialog] for dialog in seen] == [
        ["x"], ["x", "a \x1b[31mb\x07", "y"], ["x", "a \x1b[31mb\x07", "z"], ["be kind", "w"],
    ]  # fmt: skip
    assert capsys.readouterr().out == "a [31mb\n" * 4  # the terminal never sees an escape


def test_ctrl_c_stops_an_answer_only(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, directory: Path
) -> None:
    seen: list[tuple[Message, ...]] = []
    talk = conversation(["half", "^C"], monkeypatch, directory, seen)
    lines = iter(["x", "y"])
    talk.hold(lambda: next(lines, None))
    out, err = capsys.readouterr()
    assert (out, err) == ("half\nhalf\n", "(stopped)\n(stopped)\n")
    assert [m.content for m in seen[1]] == ["x", "half", "y"]


def test_chat_forgets_the_oldest_turns_when_the_context_is_full(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, directory: Path
) -> None:
    seen: list[tuple[Message, ...]] = []
    talk = conversation(["the river"], monkeypatch, directory, seen)
    lines = iter(["the river sings to every child"] * 5 + ["the mill " * 60])
    talk.hold(lambda: next(lines, None))
    assert len(seen) == 5
    assert len(seen[-1]) < 9
    err = capsys.readouterr().err
    assert "the oldest turn is forgotten" in err
    assert "say it shorter" in err


def test_prepare_leaves_what_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    prepare()
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"
    monkeypatch.delenv("OMP_WAIT_POLICY")
    prepare()
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"


def test_help_loads_nothing_heavy() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "ayni", "--help"]
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "typer" in loaded
    assert loaded & {"torch", "numpy", "matplotlib", "sqlalchemy", "starlette", "tokenizers", "transformers"} == set()


def test_stories260k_greedy_is_llama2c_byte_for_byte(
    capsys: pytest.CaptureFixture[str], data_dir: Path, tmp_path: Path
) -> None:
    source = data_dir / "models" / "stories260k"
    model = tmp_path / "model"
    ok(capsys, "import", source / "stories260K.bin", model, "--tokenizer", source / "tok512.bin")
    out = ok(capsys, "generate", model, "--text", "", "--temperature", 0, "--max-tokens", 200)
    assert out.encode() == (source / "greedy_200_steps.txt").read_bytes()
    exported = json.loads(ok(capsys, "export", model, tmp_path / "bin", "--format", "llama2c", "--json"))
    assert exported["format"] == "llama2c"
    ok(capsys, "import", next((tmp_path / "bin").glob("model.bin")), tmp_path / "again")
    again = ok(capsys, "generate", tmp_path / "again", "--text", "", "--temperature", 0, "--max-tokens", 200)
    assert again == out


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


ESCAPES = "a\x1b[2J\x9b31m\x07\u202eb\n\tc é"


def test_what_is_shown_cannot_drive_a_terminal_and_reaches_a_program_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for out, shown in ((Terminal(), "a�[2J�31m��b\n\tc é\n"), (io.StringIO(), ESCAPES + "\n")):
        monkeypatch.setattr(sys, "stdout", out)
        cli.show(ESCAPES)
        assert out.getvalue() == shown


class Spelling:
    """An engine and a tokenizer in one: every token is a character of a hostile model."""

    special: frozenset[int] = frozenset()
    bos, eos, unk, vocab_size = 1, 2, 0, 0x110000

    @property
    def tokenizer(self) -> Spelling:
        return self

    def decode(self, ids: list[int]) -> str:
        return "".join(map(chr, ids))

    def stream(self, request: object) -> Iterator[int]:
        return map(ord, ESCAPES)

    def generate(self, requests: list[Request]) -> Iterator[list[tuple[list[int], list[float]]]]:
        return iter([[([*map(ord, ESCAPES)], [0.0] * len(ESCAPES))] for _ in requests])


@pytest.mark.parametrize("lines", [False, True])
def test_a_model_cannot_drive_the_terminal_by_generate(monkeypatch: pytest.MonkeyPatch, lines: bool) -> None:
    engine: Any = Spelling()
    request = Request((97,), (0,), Sampling(1.0, 1.0, 9))
    for out, harmless in ((Terminal(), True), (io.StringIO(), False)):
        monkeypatch.setattr(sys, "stdout", out)
        if lines:
            write_lines(_rows(engine, ["x"], [request], 0), None, False)
            assert json.loads(out.getvalue())["finish_reason"] == "length"
        else:
            _print_continuation(engine, request)
        assert any(sign in out.getvalue() for sign in ("\x9b", "\u202e")) == (not harmless)
        assert ("\x1b" in out.getvalue()) == (not harmless and not lines)  # JSON writes it \\u001b


def test_doctor_and_inspect_show_names_that_are_harmless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stages" / "01-\x1b[2J").mkdir(parents=True)
    row = {"messages": [{"role": "user", "content": "a", "\x1b[2J": 1}]}
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n" + json.dumps({"prompt": "a"}) + "\n")
    for argv in (["doctor", str(tmp_path)], ["inspect", str(tmp_path / "a.jsonl")]):
        out = Terminal()
        monkeypatch.setattr(sys, "stdout", out)
        cli.run(argv)
        assert "�[2J" in out.getvalue()
        assert "\x1b[2J" not in out.getvalue()


def test_a_name_that_is_no_text_is_printed_all_the_same(tmp_path: Path) -> None:
    file = tmp_path / "a\udcff.jsonl"
    file.write_text(json.dumps({"prompt": "a", "chosen": "b", "rejected": "c"}) + "\n")
    command = [sys.executable, "-m", "ayni", "inspect", str(file), "--json"]
    ended = subprocess.run(
        command, capture_output=True, env={**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[2])}
    )
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["path"] == str(file)
