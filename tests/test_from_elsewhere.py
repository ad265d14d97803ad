"""Twenty models, recipes and runs from somebody who means ill: nothing of theirs runs, nothing is written but what was
asked for, and nothing that the environment holds is told."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from mutated import listing
from safetensors.torch import load_file
from small_models import build, edit_json, small_tokenizer

from ayni import cli
from ayni.errors import BadInput
from ayni.files import write_json
from ayni.model_directory import save_model
from ayni.runs.evaluations import _git
from ayni.runs.recipe import read_recipe

CANARY = "canary-7f3a9c"
KEYS = ("AYNI_REWARD_KEY", "AYNI_JUDGE_KEY", "SOME_TOKEN", "SOME_PASSWORD")
Argv = list[Any]


class _Touch:
    """Unpickled by anyone careless, it makes a file."""

    def __init__(self, marker: Path, how: str) -> None:
        self.marker, self.how = marker, how

    def __reduce__(self) -> tuple[Any, ...]:
        if self.how == "os.system":
            return os.system, (f"touch {self.marker}",)
        if self.how == "exec":
            return exec, (f"open({str(self.marker)!r}, 'w')",)
        return torch.load, (str(self.marker),)


def model(theirs: Path) -> Path:
    save_model(theirs / "m", build(), small_tokenizer())
    return theirs / "m"


def pickle_in(theirs: Path, marker: Path, how: str, name: str) -> Argv:
    m = model(theirs)
    tensors: dict[str, Any] = dict(load_file(m / "model.safetensors"))
    tensors["model.norm.weight"] = _Touch(marker, how)
    (m / "model.safetensors").unlink()
    if name.endswith(".pth"):
        (m / "config.json").unlink()
        write_json(m / "params.json", {"dim": 16, "n_layers": 2, "n_heads": 4})
    torch.save(tensors, m / name)
    return ["import", m, theirs.parent / "out"]


def plain_pickle(theirs: Path, marker: Path) -> Argv:
    m = model(theirs)
    (m / "model.safetensors").unlink()
    (m / "pytorch_model.bin").write_bytes(pickle.dumps((_Touch(marker, "os.system"), bytes(80_000))))
    return ["generate", m, "--text", "a"]


def code_beside(theirs: Path, marker: Path) -> Argv:
    m = model(theirs)
    code = f"open({str(marker)!r}, 'w')\n"
    for name in (
        "modeling_llama.py",
        "configuration_llama.py",
        "tokenization_llama.py",
        "sitecustomize.py",
        "torch.py",
    ):
        (m / name).write_text(code)
    auto = {"AutoConfig": "configuration_llama.C", "AutoModelForCausalLM": "modeling_llama.M"}
    edit_json(m / "config.json", auto_map=auto, trust_remote_code=True, _name_or_path="evil/model")
    edit_json(m / "tokenizer_config.json", auto_map={"AutoTokenizer": ["tokenization_llama.T", None]})
    return ["generate", m, "--text", "a", "--max-tokens", "2"]


def chat_template(theirs: Path, marker: Path) -> Argv:
    m = model(theirs)
    template = "{{ cycler.__init__.__globals__.os.system('touch " + str(marker) + "') }}{{ '$SOME_TOKEN' }}"
    edit_json(m / "tokenizer_config.json", chat_template=template)
    (m / "chat_template.jinja").write_text(template)
    (theirs / "p.jsonl").write_text('{"messages": [{"role": "user", "content": "hi"}]}\n')
    return ["generate", m, "--prompts", theirs / "p.jsonl", "--max-tokens", "2"]


def adapter_of_secrets(theirs: Path, marker: Path) -> Argv:
    m = model(theirs)
    (m / "config.json").unlink()
    write_json(m / "adapter_config.json", {"peft_type": "LORA", "base_model_name_or_path": "/proc/self/environ"})
    return ["import", m, theirs.parent / "out"]


def config_is_the_environment(theirs: Path, marker: Path) -> Argv:
    m = model(theirs)
    (m / "config.json").unlink()
    (m / "config.json").symlink_to("/proc/self/environ")
    return ["generate", m, "--text", "a"]


def tokenizer_is_a_secret(theirs: Path, marker: Path) -> Argv:
    m = model(theirs)
    for name in ("tokenizer.model", "tokenizer.json"):
        (m / name).unlink()
        (m / name).symlink_to(theirs.parent / "secret.txt")
    return ["generate", m, "--text", "a"]


def weights_are_a_secret(theirs: Path, marker: Path) -> Argv:
    m = model(theirs)
    (m / "model.safetensors").unlink()
    (m / "model.safetensors").symlink_to(theirs.parent / "secret.txt")
    return ["doctor", m]


def escapes(theirs: Path, marker: Path) -> Argv:
    m = model(theirs)
    edit_json(m / "config.json", hidden_act="\x1b]0;owned\x07\x1b[2J", architectures=["\x1b[31m"])
    return ["doctor", m]


def recipe(theirs: Path, value: dict[str, Any]) -> Argv:
    (theirs / "recipe.yaml").write_text(yaml.safe_dump(value))
    (theirs / "text.txt").write_text("the village by the river\n" * 50)
    return ["run", theirs / "recipe.yaml", "--out", theirs.parent / "out"]


STAGES = {"tokenizer": {"data": ["text.txt"], "vocab_size": 300}}


def compiler(theirs: Path, marker: Path) -> Argv:
    evil = theirs / "cc.sh"
    evil.write_text(f"#!/bin/sh\ntouch {marker}\n")
    evil.chmod(0o755)
    environment = {"CC": str(evil), "LD_PRELOAD": str(evil), "PATH": str(theirs), "XDG_CACHE_HOME": str(theirs)}
    environment |= {"PYTHONPATH": str(theirs), "https_proxy": "http://evil.example", "GIT_EXTERNAL_DIFF": str(evil)}
    argv = recipe(theirs, {"environment": environment, "stages": STAGES})
    with pytest.raises(BadInput, match="a recipe may not set it"):
        read_recipe(argv[1])
    assert not {str(evil), str(theirs)} & {os.environ.get(name) for name in environment}
    return argv


def tags(theirs: Path, marker: Path) -> Argv:
    recipe(theirs, {})
    (theirs / "recipe.yaml").write_text(f"stages: !!python/object/apply:os.system ['touch {marker}']\n")
    return ["run", theirs / "recipe.yaml", "--out", theirs.parent / "out"]


def stage_of_theirs(theirs: Path, marker: Path) -> Argv:
    (theirs / "evil.py").write_text(f"open({str(marker)!r}, 'w')\n")
    return recipe(theirs, {"stages": {"evil": {"kind": "../evil"}, "os": {}, "a": {"kind": "ayni.stages.sft"}}})


def name_that_leaves(theirs: Path, marker: Path) -> Argv:
    argv = recipe(theirs, {"name": "../../elsewhere", "stages": STAGES})
    return argv[:2]


def stage_that_leaves(theirs: Path, marker: Path) -> Argv:
    return recipe(theirs, {"stages": {"../../../elsewhere": {"kind": "tokenizer", "data": ["text.txt"]}}})


def variable_in_a_path(theirs: Path, marker: Path) -> Argv:
    return recipe(theirs, {"stages": {"tokenizer": {"data": ["$SOME_TOKEN/x", "${SOME_PASSWORD}"]}}})


def variable_in_text(theirs: Path, marker: Path) -> Argv:
    return recipe(theirs, {"name": "$SOME_TOKEN", "description": "$SOME_TOKEN ${SOME_PASSWORD}", "stages": STAGES})


def seal_that_leaves(theirs: Path, marker: Path) -> Argv:
    stage = theirs / "run" / "stages" / "01-make-00000000"
    stage.mkdir(parents=True)
    (stage / "inputs.json").write_text("{}")
    seal = {"hash": "", "kind": "sft", "version": 1, "config": {}, "seed": 0, "seconds": 1, "source": ""}
    write_json(stage / "DONE.json", {**seal, "files": {"../../../../secret.txt": "0" * 64}, "bytes": {}})
    return ["doctor", theirs / "run"]


def status_that_leaves(theirs: Path, marker: Path) -> Argv:
    run = theirs / "run"
    run.mkdir()
    (theirs.parent / "mine" / "metrics.jsonl").write_text('{"step": 1, "loss": 1.0}\n')
    stage = {"name": "sft", "kind": "sft", "directory": "../../mine", "state": "ran"}
    write_json(run / "status.json", {"run": "r", "status": "done", "stages": [stage]})
    for verb in (["doctor", run], ["chat", run], ["generate", run, "--text", "a"], ["score", run / "sft", "x.jsonl"]):
        assert cli.run([str(word) for word in verb]) == 2
    return ["report", run]


def link_that_leaves(theirs: Path, marker: Path) -> Argv:
    run = theirs / "run"
    (run / "stages").mkdir(parents=True)
    (run / "stages" / "01-sft-00000000").symlink_to(theirs.parent / "mine")
    stage = {"name": "sft", "kind": "sft", "directory": "stages/01-sft-00000000", "state": "ran"}
    write_json(run / "status.json", {"run": "r", "status": "done", "stages": [stage]})
    return ["report", run]


def report_that_leaves(theirs: Path, marker: Path) -> Argv:
    (theirs / "run").mkdir()
    write_json(theirs / "run" / "status.json", {"run": "r", "status": "done", "stages": []})
    (theirs / "run" / "report").symlink_to(theirs.parent / "mine")
    return ["report", theirs / "run"]


def names_that_drive_a_terminal(theirs: Path, marker: Path) -> Argv:
    (theirs / "run" / "stages" / "01-\x1b[2J\x1b]0;owned\x07").mkdir(parents=True)
    return ["doctor", theirs / "run"]


ATTACKS: dict[str, Callable[[Path, Path], Argv]] = {
    "os.system in a .bin": lambda t, m: pickle_in(t, m, "os.system", "pytorch_model.bin"),
    "exec in a .bin": lambda t, m: pickle_in(t, m, "exec", "pytorch_model.bin"),
    "torch.load in a .bin": lambda t, m: pickle_in(t, m, "torch.load", "pytorch_model.bin"),
    "os.system in a .pth": lambda t, m: pickle_in(t, m, "os.system", "consolidated.00.pth"),
    "a plain pickle": plain_pickle,
    "code and auto_map": code_beside,
    "a chat template": chat_template,
    "an adapter of the environment": adapter_of_secrets,
    "a config that is the environment": config_is_the_environment,
    "a tokenizer that is a secret": tokenizer_is_a_secret,
    "weights that are a secret": weights_are_a_secret,
    "escapes in a config": escapes,
    "a recipe's compiler": compiler,
    "tags of Python": tags,
    "a stage of theirs": stage_of_theirs,
    "a name that leaves": name_that_leaves,
    "a stage that leaves": stage_that_leaves,
    "a variable in a path": variable_in_a_path,
    "variables in text": variable_in_text,
    "a seal that leaves": seal_that_leaves,
    "a status that leaves": status_that_leaves,
    "a link that leaves": link_that_leaves,
    "a report that leaves": report_that_leaves,
    "names for a terminal": names_that_drive_a_terminal,
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_runs_nothing_leaves_and_nothing_is_told(
    attack: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in KEYS:
        monkeypatch.setenv(key, f"{CANARY}-{key}")
    marker, theirs, mine = tmp_path / "marker", tmp_path / "theirs", tmp_path / "mine"
    theirs.mkdir()
    mine.mkdir()
    (tmp_path / "secret.txt").write_text(f"{CANARY}\n" * 20_000)
    monkeypatch.chdir(mine)
    argv = ATTACKS[attack](theirs, marker)
    before = listing(tmp_path)
    code = cli.run([str(word) for word in argv])
    out, err = capfd.readouterr()
    assert code in (0, 2)
    assert not marker.exists()
    assert CANARY not in out + err
    assert "Traceback" not in err
    assert argv[0] == "generate" or not {"\x1b", "\x07"} & {*out, *err}  # generate's text is the model's own
    after = {name: stamp for name, stamp in listing(tmp_path).items() if name.split("/")[0] != "out"}
    changed = {name for name in after.keys() | before.keys() if after.get(name) != before.get(name)}
    assert {name for name in changed if not name.startswith("theirs/run/report")} <= {".", "mine"} & changed
    for file in (tmp_path / "out").rglob("*"):
        assert not file.is_file() or CANARY.encode() not in file.read_bytes()


def test_there_are_twenty() -> None:
    assert len(ATTACKS) >= 20


def test_a_recipe_says_what_it_runs_and_whom_it_asks(tmp_path: Path) -> None:
    (tmp_path / "judge.py").write_text("def reward(prompts, answers): return [0.0 for _ in answers]\n")
    (tmp_path / "p.jsonl").write_text('{"prompt": "hi"}\n')
    save_model(tmp_path / "m", build(), small_tokenizer())
    both = {"kind": "reject", "model": "m", "prompts": ["p.jsonl"]}
    stages = {
        "file": {**both, "reward": "judge.py"},
        "module": {**both, "reward_function": "python:json:loads"},
        "server": {**both, "reward_function": "https://me:secret@judge.example/score"},
        "driver": {**both, "reward_function": "http://\x1b[2Jx"},
        "quiet": {"kind": "tokenizer", "data": ["judge.txt"]},
    }
    (tmp_path / "judge.txt").write_text("words\n")
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({"stages": stages}))
    assert list(read_recipe(tmp_path / "r.yaml").reaches()) == [
        'driver: sends what it reads and samples to "\\u001b[2Jx"',
        f'file: runs "{tmp_path / "judge.py"}", which may do whatever you may',
        'module: runs "python:json:loads", which may do whatever you may',
        'server: sends what it reads and samples to "judge.example"',
    ]


@pytest.mark.skipif(shutil.which("git") is None, reason="no git")
def test_a_repository_of_theirs_starts_no_program(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True, capture_output=True)

    git("init", "-q")
    (tmp_path / "recipe.yaml").write_text("a")
    (tmp_path / ".gitattributes").write_text("* filter=ev=il\n")
    git("add", ".")
    git("-c", "user.name=a", "-c", "user.email=b", "commit", "-qm", "x")
    with open(tmp_path / ".git" / "config", "a") as file:
        file.write(f'[core]\n fsmonitor = "touch {tmp_path}/marker"\n')
        file.write(f'[filter "ev=il"]\n clean = "touch {tmp_path}/marker; cat"\n required = true\n')
    hook = tmp_path / ".git" / "hooks" / "post-index-change"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/marker\n")
    hook.chmod(0o755)
    (tmp_path / "recipe.yaml").write_text("b")
    assert _git(tmp_path / "recipe.yaml", "status", "--porcelain", "-uno") == "M recipe.yaml"
    assert len(_git(tmp_path / "recipe.yaml", "rev-parse", "HEAD") or "") == 40
    assert not (tmp_path / "marker").exists()
