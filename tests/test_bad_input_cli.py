"""Whatever is wrong with a file, a setting or a model: one line, exit 2, and nothing is written."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from bad_input_cases import CASES, Case
from hostile_cases import HOSTILE
from safetensors.torch import load_file, save_file
from small_models import VOCAB, build, edit_json, small_tokenizer, truncate

from ayni import cli
from ayni.files import sha256_of
from ayni.model.score_head import with_score_head
from ayni.model_directory import save_model
from ayni.text.tokenizer import train_tokenizer

Change = Callable[[Path], object]
READS = {
    "demonstrations": "sft --model m --data PATH --out o",
    "comparisons": "reward --model m --data PATH --out o",
    "prompts": "reject --model m --reward rm --prompts PATH --out o",
    "texts": "tokenizer --data PATH --out o --set vocab_size=300",
    "tokenizer": "encode PATH text.jsonl",
}
RECIPE = """\
seed: 1
stages:
  sft:
    model: m
    data: [dialogs.jsonl]
    epochs: 1
  best:
    kind: reject
    model: sft
    reward: rm
    prompts: [prompts.jsonl]
    max_tokens: 4
    finished_only: false
"""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with models, sound files and a sound recipe; every test breaks one thing in its own copy."""
    here = tmp_path_factory.mktemp("sound")
    model = build()
    save_model(here / "m", model, small_tokenizer())
    save_model(here / "rm", with_score_head(model, 0), small_tokenizer())
    other = train_tokenizer(["a tokenizer of quite another kind, trained on other words"] * 3, VOCAB)
    save_model(here / "other-rm", with_score_head(model, 0), other)
    larger = train_tokenizer(["more pieces than the model has rows, every single one a word"] * 3, VOCAB + 20)
    larger.save(here / "larger")
    user, answer = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}
    for name, row in (
        ("dialogs.jsonl", {"messages": [user, answer]}),
        ("pairs.jsonl", {"prompt": "hi", "chosen": "ho", "rejected": "no"}),
        ("prompts.jsonl", {"id": "p", "dialog": [user]}),
        ("text.jsonl", {"text": "the village by the river"}),
        ("long-dialogs.jsonl", {"messages": [user, {**answer, "content": "the village " * 99}]}),
        ("long-prompts.jsonl", {"id": "p", "dialog": [{**user, "content": "the village " * 99}]}),
    ):
        (here / name).write_text(json.dumps(row) + "\n")
    (here / "recipe.yaml").write_text(RECIPE)
    return here


@pytest.fixture
def place(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    here = tmp_path / "here"
    shutil.copytree(template, here)
    monkeypatch.chdir(here)
    return here


def check(capsys: pytest.CaptureFixture[str], here: Path, command: str | list[str], message: str) -> None:
    """Exit 2, nothing on stdout, one line on stderr that says `message`, and every file as it was."""
    before = sorted(here.rglob("*")), sha256_of(here)
    capsys.readouterr()
    code = cli.run(command.split() if isinstance(command, str) else command)
    out, err = capsys.readouterr()
    assert (code, out) == (2, ""), err
    assert err.count("\n") == 1, err
    assert message in err
    assert (sorted(here.rglob("*")), sha256_of(here)) == before


@pytest.mark.parametrize("case", [*CASES, *HOSTILE], ids=lambda case: f"{case.reader}: {case.name}")
def test_malformed_files(capsys: pytest.CaptureFixture[str], place: Path, case: Case) -> None:
    beside = place.parent / "in"  # not hashed: some of these files have a terabyte of holes
    beside.mkdir()
    path = os.path.relpath(case.make(beside), place)
    before = sorted(beside.rglob("*"))
    quiet = "" if case.reader == "tokenizer" else " --quiet"
    check(capsys, place, READS[case.reader].replace("PATH", path) + quiet, case.says.replace("PATH", path))
    assert sorted(beside.rglob("*")) == before


def text(name: str, old: str, new: str) -> Change:
    def change(here: Path) -> None:
        whole = (here / name).read_text()
        assert whole.count(old) == 1
        (here / name).write_text(whole.replace(old, new))

    return change


def raw(name: str, content: str | bytes) -> Change:
    return lambda here: (here / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def config(name: str, **change: object) -> Change:
    return lambda here: edit_json(here / name / "config.json", **change)


def remove(name: str) -> Change:
    return lambda here: (here / name).unlink()


def weights(name: str, edit: Callable[[dict[str, object]], object]) -> Change:
    def change(here: Path) -> None:
        file = here / name / "model.safetensors"
        tensors = load_file(file)
        edit(tensors)  # type: ignore[arg-type]
        save_file(tensors, file, metadata={"format": "pt"})

    return change


def unchanged(here: Path) -> None:
    pass


RUN = "run recipe.yaml --quiet"
RECIPES: dict[str, tuple[Change, str | list[str], str]] = {
    "not YAML": (raw("recipe.yaml", "stages: [\n  a: {"), RUN, "recipe.yaml:2: not YAML"),
    "a tab": (raw("recipe.yaml", "stages:\n\tsft: 1\n"), RUN, "recipe.yaml:2: not YAML"),
    "empty": (raw("recipe.yaml", ""), RUN, "recipe.yaml:1: the file is empty"),
    "only a comment": (raw("recipe.yaml", "# soon\n"), RUN, "recipe.yaml:1: the file is empty"),
    "a list": (raw("recipe.yaml", "- sft\n"), RUN, "recipe.yaml:1: expected `key: value` pairs, found list"),
    "not UTF-8": (raw("recipe.yaml", b"name: \xff\n"), RUN, "recipe.yaml:1: byte 0xff is not UTF-8"),
    "no stages": (raw("recipe.yaml", "seed: 1\n"), RUN, "recipe.yaml:1: stages: Field required"),
    "empty stages": (raw("recipe.yaml", "stages: {}\n"), RUN, "recipe.yaml:1: stages: there are no stages"),
    "duplicate key": (text("recipe.yaml", "    epochs: 1", "    epochs: 1\n    epochs: 2"), RUN,
                      "recipe.yaml:7: stages.sft.epochs: the key stands twice"),
    "duplicate stage": (text("recipe.yaml", "  best:", "  sft:"), RUN, "recipe.yaml:7: stages.sft: the key stands"),
    "unknown key": (text("recipe.yaml", "epochs: 1", "epoch: 1"), RUN,
                    "recipe.yaml:6: stages.sft.epoch: sft has no such key; did you mean epochs?"),
    "unknown key at the top": (text("recipe.yaml", "seed: 1", "sead: 1"), RUN, "recipe.yaml:1: sead: unknown key"),
    "unknown stage kind": (text("recipe.yaml", "kind: reject", "kind: rejct"), RUN,
                           "recipe.yaml:8: no stage of the kind 'rejct'; did you mean reject?"),
    "wrong type": (text("recipe.yaml", "epochs: 1", "epochs: many"), RUN, "recipe.yaml:6: stages.sft.epochs: "),
    "text for a number": (text("recipe.yaml", "epochs: 1", 'epochs: "1"'), RUN, "recipe.yaml:6: stages.sft.epochs: "),
    "out of range": (text("recipe.yaml", "epochs: 1", "epochs: -1"), RUN, "recipe.yaml:6: stages.sft.epochs: Input"),
    "nested wrong": (text("recipe.yaml", "epochs: 1", "optimiser: {lr: -1}"), RUN,
                     "recipe.yaml:6: stages.sft.optimiser.lr: Input should be greater than 0"),
    "seed of text": (text("recipe.yaml", "seed: 1", "seed: one"), RUN, "recipe.yaml:1: seed: Input should be a valid"),
    "a circle": (text("recipe.yaml", "model: m", "model: best"), RUN, "wait for each other: sft → best → sft"),
    "missing input": (text("recipe.yaml", "    model: m\n", ""), RUN, "recipe.yaml:3: stages.sft: the input 'model'"),
    "missing file": (text("recipe.yaml", "dialogs.jsonl", "dialog.jsonl"), RUN,
                     "recipe.yaml:5: stages.sft.data.0: dialog.jsonl is neither a stage nor a file; stages: sft"),
    "unset variable": (text("recipe.yaml", "dialogs.jsonl", "$AYNI_DATA/x.jsonl"), RUN,
                       "stages.sft.data.0: $AYNI_DATA/x.jsonl: the environment variable AYNI_DATA is not set; set it"),
    "a name with a slash": (text("recipe.yaml", "seed: 1", "name: ../up"), RUN, "name: '../up' cannot name a dir"),
    "extends nothing": (text("recipe.yaml", "seed: 1", "extends: no.yaml"), RUN, "extends: no.yaml: no such file"),
    "extends itself": (text("recipe.yaml", "seed: 1", "extends: recipe.yaml"), RUN, "the files extend each other"),
    "no recipe": (remove("recipe.yaml"), RUN, "recipe.yaml: no such file"),
    "an alias of itself": (raw("recipe.yaml", "stages: &s\n  sft: *s\n"), RUN,
                            "recipe.yaml:1: the value holds itself"),
    "a merge of itself": (raw("recipe.yaml", "stages: &s {<<: *s}\n"), RUN, "recipe.yaml:1: the value holds itself"),
    "aliases of aliases": (raw("recipe.yaml", "a: &a [" + "x," * 99 + "]\n" + "".join(
        f"{b}: &{b} [" + f"*{a}, " * 99 + "]\n" for a, b in zip("abcd", "bcde", strict=True))), RUN,
        "recipe.yaml:3: more than 10000 values, aliases written out"),
    "merges of merges": (raw("recipe.yaml", "a: &a {x: 1}\n" + "".join(
        f"{b}: &{b} {{<<: [" + f"*{a}, " * 99 + "]}\n" for a, b in zip("abcd", "bcde", strict=True))), RUN,
        "recipe.yaml:3: more than 10000 values, aliases written out"),
    "a deep list": (raw("recipe.yaml", "stages: " + "[" * 60 + "]" * 60), RUN, "nested deeper than 50 levels"),
    "a list without end": (raw("recipe.yaml", "[" * 100_000), RUN, "recipe.yaml:1: nested deeper than 50 levels"),
    "a long recipe": (raw("recipe.yaml", "a: 1\n" * 50_000), RUN, "recipe.yaml: longer than 131072 characters"),
    "a recipe of holes": (lambda here: os.truncate(here / "recipe.yaml", 1 << 30), RUN,
                          "recipe.yaml: 1G bytes are more than the 64M"),
    "a bell": (raw("recipe.yaml", "name: \x07\n"), RUN, "recipe.yaml:1: not YAML: unacceptable character #x0007"),
    "a NUL": (text("recipe.yaml", "dialogs.jsonl", '"\\0"'), RUN, "is neither a stage nor a file"),
    "a name too long": (text("recipe.yaml", "dialogs.jsonl", "a" * 300), RUN, "is neither a stage nor a file"),
    "a home of nobody": (text("recipe.yaml", "dialogs.jsonl", "~nobody-here/x"), RUN, "is neither a stage nor a file"),
    "extends a NUL": (text("recipe.yaml", "seed: 1", 'extends: "\\0"'), RUN, "no such file"),
    "a tag of Python": (text("recipe.yaml", "dialogs.jsonl", "!!python/name:os.system x"), RUN,
                        "recipe.yaml:5: not YAML: the tag !!python/name:os.system is unknown here"),
    "a tag that calls": (text("recipe.yaml", "[dialogs.jsonl]", "!!python/object/apply:os.system [x]"), RUN,
                         "recipe.yaml:5: not YAML: the tag !!python/object/apply:os.system is unknown here"),
    "a bool that is none": (text("recipe.yaml", "epochs: 1", "epochs: !!bool x"), RUN, "not YAML: 'x' is no bool"),
    "an int that is none": (text("recipe.yaml", "epochs: 1", 'epochs: !!int ""'), RUN, "not YAML: '' is no int"),
    "an octal that is none": (text("recipe.yaml", "epochs: 1", "epochs: 089"), RUN, "not YAML: '089' is no int"),
    "a time that is none": (text("recipe.yaml", "epochs: 1", "epochs: !!timestamp x"), RUN, "!!timestamp is unknown"),
    "a number of thousands of digits": (text("recipe.yaml", "seed: 1", "seed: " + "9" * 5000), RUN, "recipe.yaml:1: "),
    "a number beyond 64 bits": (text("recipe.yaml", "seed: 1", "seed: 9223372036854775808"), RUN,
                                "recipe.yaml:1: a whole number of more than 64 bits"),
    "NaN for a number": (text("recipe.yaml", "epochs: 1", "epochs: .nan"), RUN, "stages.sft.epochs: Input should be"),
    "no end for a number": (text("recipe.yaml", "epochs: 1", "epochs: .inf"), RUN, "sft.epochs: Input should be"),
    "too many processes": (text("recipe.yaml", "seed: 1", "processes: 1000000000"), RUN,
                           "recipe.yaml:1: processes: Input should be less than or equal to 256"),
    "a compiler": (text("recipe.yaml", "seed: 1", "environment: {CC: ./evil.sh}"), RUN,
                   "recipe.yaml:1: environment.CC: no path names this variable, and a recipe may not set it"),
    "a library": (text("recipe.yaml", "seed: 1", "environment: {LD_PRELOAD: ./evil.so}"), RUN,
                  "a recipe may not set it"),
    "--set of a bell": (unchanged, [*RUN.split(), "--set", "sft.epochs=\x07"], "not YAML: unacceptable character"),
    "--set of no stage": (unchanged, RUN + " --set sfd.epochs=2", "--set sfd.epochs=2: no stage 'sfd'; did you mean s"),
    "--set of no key": (unchanged, RUN + " --set sft.epoch=2", "stages.sft.epoch: sft has no such key; did you mean"),
    "--set of a wrong type": (unchanged, RUN + " --set sft.epochs=two", "stages.sft.epochs: Input should be a valid"),
    "--set without a value": (unchanged, RUN + " --set sft.epochs", "expected KEY=VALUE"),
    "--set of bad YAML": (unchanged, RUN + " --set sft.epochs=[", "--set stages.sft.epochs=[:1: not YAML"),
    "--only of no stage": (unchanged, RUN + " --only nope", "there is no stage 'nope'; stages: sft, best"),
    "--out with other files": (unchanged, RUN + " --out m", "m: holds files that are no run's; choose an empty"),
    "--out is a file": (unchanged, RUN + " --out text.jsonl", "text.jsonl: is a file, not a directory; choose"),
    "malformed data": (raw("dialogs.jsonl", '{"messages": []}\n'), RUN, "dialogs.jsonl:1: messages: expected a list"),
    "a reward model as policy": (text("recipe.yaml", "model: m", "model: rm"), RUN,
                                 "recipe.yaml:4: stages.sft.model: rm: expected a language model, found a reward"),
    "nothing fits": (text("recipe.yaml", "dialogs.jsonl", "long-dialogs.jsonl"), RUN, "no dialogue fits in 64 tokens"),
}  # fmt: skip

SFT = "sft --model m --data dialogs.jsonl --out o --quiet"
REWARD = "reward --model m --data pairs.jsonl --out o --quiet"
REJECT = "reject --model m --reward rm --prompts prompts.jsonl --out o --quiet"
PPO = "ppo --model m --reward-helpfulness rm --prompts prompts.jsonl --out o --quiet --set iterations=1"
EVALUATE = "evaluate --model m --prompts prompts.jsonl --judge rm --out o --quiet --set max_tokens=4"
SPEAK = "generate m --text hi"
MODELS: dict[str, tuple[Change, str, str]] = {
    "no model": (unchanged, SFT.replace("--model m", "--model n"), "n: no such file or directory"),
    "not a model": (unchanged, SFT.replace("--model m", "--model text.jsonl"),
                    "text.jsonl: expected a language model, found texts"),
    "no config": (remove("m/config.json"), SPEAK, "m: no config.json: not a model directory"),
    "config not JSON": (raw("m/config.json", "{"), SPEAK, "m/config.json:1: not JSON"),
    "another architecture": (config("m", architectures=["GPT2LMHeadModel"]), SPEAK, "m/config.json: "),
    "an impossible shape": (config("m", num_attention_heads=3), SPEAK, "m/config.json: "),
    "no weights": (remove("m/model.safetensors"), SFT, "m: no weights here: neither model.safetensors nor"),
    "torn weights": (lambda here: truncate("model.safetensors", 0.5)(here / "m"), SPEAK, "m/model.safetensors: "),
    "a weight missing": (weights("m", lambda t: t.pop("model.norm.weight")), SPEAK,
                         "m: model.norm.weight: the weight is missing"),
    "a weight too many": (weights("m", lambda t: t.update(extra=t["model.norm.weight"].clone())), SPEAK,
                          "m: extra: Llama has no such weight"),
    "a weight of another shape": (weights("m", lambda t: t.update({"model.norm.weight": t["model.norm.weight"][:3]})),
                                  SPEAK, "m: model.norm.weight: the weight is 3, the configuration says 16"),
    "head missing": (weights("rm", lambda t: t.pop("score.weight")), "score rm pairs.jsonl",
                     "rm: score.weight: the weight is missing"),
    "a language model as reward model": (unchanged, REJECT.replace("--reward rm", "--reward m"),
                                         "m: expected a reward model or a Python file with a reward function, found a"),
    "a language model as judge": (unchanged, EVALUATE.replace("rm", "m"),
                                  "m: expected a reward model, found a language model"),
    "a reward model as policy": (unchanged, PPO.replace("--model m", "--model rm"),
                                 "rm: expected a language model, found a reward model"),
    "a reward model evaluated": (unchanged, EVALUATE.replace("--model m", "--model rm"),
                                 "rm: expected a language model, found a reward model"),
    "a reward model that talks": (unchanged, "chat rm", "rm: this is a reward model, it cannot speak"),
    "no tokenizer": (lambda here: [file.unlink() for file in (here / "m").glob("tokenizer*")], SPEAK,
                     "m: no tokenizer"),
    "a larger tokenizer": (lambda here: shutil.copytree(here / "larger", here / "m", dirs_exist_ok=True), SFT,
                           f"m: vocab_size: mismatched tokenizer: {VOCAB + 20} ids, but the embedding has {VOCAB}"),
    "a critic with another tokenizer": (unchanged, PPO.replace("helpfulness rm", "helpfulness other-rm"),
                                        "other-rm: the critic starts from this reward model"),
    "a chat template that is gone": (remove("m/tokenizer.model"), "encode m/tokenizer.model text.jsonl",
                                     "m/tokenizer.model: no such file"),
    "import onto a model": (unchanged, "import m rm", "rm: exists already; choose another name"),
    "import of a torn .bin": (raw("x.bin", b"\0" * 20), "import x.bin o", "x.bin: "),
    "import with a larger tokenizer": (unchanged, "import m o --tokenizer larger", "larger: vocab_size: mismatched"),
}  # fmt: skip
STAGES: dict[str, tuple[Change, str, str]] = {
    "--out of another stage": (unchanged, SFT.replace("--out o", "--out rm"), "rm: holds files that are no stage's"),
    "--config not there": (unchanged, SFT + " --config c.yaml", "c.yaml: no such file"),
    "--config unknown key": (raw("c.yaml", "epochs: 1\nepoch: 1\n"), SFT + " --config c.yaml", "c.yaml:2: epoch: unkn"),
    "--config duplicate key": (raw("c.yaml", "epochs: 1\nepochs: 1\n"), SFT + " --config c.yaml", "c.yaml:2: epochs: "),
    "--config wrong type": (raw("c.yaml", "optimiser:\n  lr: [1]\n"), SFT + " --config c.yaml",
                            "c.yaml:2: optimiser.lr: Input should be a valid number"),
    "--set wrong type": (unchanged, SFT + " --set epochs=many", "--set epochs=many: epochs: Input should be a valid"),
    "--set unknown": (unchanged, SFT + " --set epoch=1", "--set epoch=1: epoch: unknown key; known here: about, ask"),
    "--seed of text": (unchanged, SFT + " --seed x", "Invalid value for '--seed'"),
    "layers that are not there": (unchanged, SFT + " --set train_layers=9", "9 of 2 layers cannot be trained"),
    "negative margin": (raw("pairs.jsonl", '{"prompt": "a", "chosen": "b", "rejected": "c", "margin": -1}\n'), REWARD,
                        "pairs.jsonl:1: margin: "),
    "pairs of another task": (unchanged, REWARD + " --set task=safety", "pairs.jsonl: no comparison of the task"),
    "pairs as dialogues": (unchanged, SFT.replace("dialogs", "pairs"), "pairs.jsonl: expected demonstrations, found c"),
    "long dialogues": (unchanged, SFT.replace("dialogs", "long-dialogs"), "no dialogue fits in 64 tokens"),
    "long prompts drawn from": (unchanged, REJECT.replace("prompts.jsonl", "long-prompts.jsonl"), "64 tokens; short"),
    "long prompts in PPO": (unchanged, PPO.replace("prompts.jsonl", "long-prompts.jsonl"), "64 tokens; short"),
    "long prompts evaluated": (unchanged, EVALUATE.replace("prompts.jsonl", "long-prompts.jsonl"), "64 tokens; short"),
    "gold of another world": (unchanged, EVALUATE.replace("--judge rm ", ""), "the gold judge knows the prompts of"),
    "no such judge": (unchanged, EVALUATE.replace("--judge rm", "--judge nobody"),
                      "--judge: nobody: no such file or directory; give a reward model"),
    "nothing to evaluate on": (unchanged, "evaluate --model m --out o --quiet", "prompts: nothing to evaluate on"),
    "collecting from strangers": (unchanged, "collect --model m --prompts prompts.jsonl --out o --quiet",
                                  "the village's annotators judge the prompts of one village"),
    "a vocabulary too large": (unchanged, "tokenizer --data text.jsonl --out o --quiet --set vocab_size=9000",
                               "vocab_size"),
    "a corpus too small": (unchanged, "pretrain --tokenizer m --data text.jsonl --out o --quiet --set dim=16 "
                          "--set hidden=16 --set heads=2 --set kv_heads=2 --set layers=1", "a row"),
    "heads that do not divide": (unchanged, "pretrain --tokenizer m --data text.jsonl --out o --quiet --set heads=7",
                                 "dim: 4096 does not split into 7 heads of even size"),
}  # fmt: skip


@pytest.mark.parametrize("name", RECIPES)
def test_bad_recipes(
    capsys: pytest.CaptureFixture[str], place: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.delenv("AYNI_DATA", raising=False)
    change, command, message = RECIPES[name]
    change(place)
    check(capsys, place, command, message)


@pytest.mark.parametrize("name", MODELS)
def test_broken_models(capsys: pytest.CaptureFixture[str], place: Path, name: str) -> None:
    change, command, message = MODELS[name]
    change(place)
    check(capsys, place, command, message)


@pytest.mark.parametrize("name", STAGES)
def test_stages_that_cannot_run(capsys: pytest.CaptureFixture[str], place: Path, name: str) -> None:
    change, command, message = STAGES[name]
    change(place)
    check(capsys, place, command, message)


def test_what_is_sound_runs(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    """Or all of the above would prove little."""
    sound = [RUN, SFT, REWARD, f"{REJECT} --set max_tokens=4 --set finished_only=false", f"{PPO} --set max_tokens=4"]
    for number, command in enumerate([*sound, EVALUATE, SPEAK, "score rm pairs.jsonl"]):
        words = command.replace("--out o", f"--out o{number}").split()
        assert cli.run(words) == 0, capsys.readouterr().err
