"""Several processes, by torchrun or --processes: the weights of one, resumed too; only the first writes and speaks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_models import build, small_tokenizer

from ayni import cli
from ayni.model_directory import save_model
from ayni.runs.sealing import damages, read_seal

SENTENCE = "the village by the river and the baker of the village"
WORDS = SENTENCE.split()
SETTINGS = {"dtype": "fp32", "batch_size": 4, "epochs": 3, "checkpoint_every": 2, "optimiser": {"lr": 0.01}}


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model `m`, ten dialogues of different lengths and eight pairs, settings, and a recipe that learns from both."""
    monkeypatch.chdir(tmp_path)
    save_model(tmp_path / "m", build(), small_tokenizer())
    with open("d.jsonl", "w") as dialogs, open("p.jsonl", "w") as pairs:
        for i in range(1, 11):
            asked, answer = " ".join(WORDS[:3]), " ".join(WORDS[:i])
            turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
            dialogs.write(json.dumps({"messages": turns}) + "\n")
            pairs.write(json.dumps({"prompt": asked, "chosen": answer, "rejected": "no"}) + "\n")
    Path("c.yaml").write_text(json.dumps(SETTINGS))
    stages = {
        "sft": {"model": "m", "data": ["d.jsonl"], **SETTINGS},
        "reward": {"model": "sft", "data": ["p.jsonl"], **SETTINGS},
    }
    Path("r.yaml").write_text(json.dumps({"stages": stages}))
    return tmp_path


def torchrun(*argv: str, **environment: str) -> subprocess.CompletedProcess[str]:
    two = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **environment}
    return subprocess.run([*two, "-m", "ayni", *argv], capture_output=True, text=True, env=env, check=False)


def difference(a: Path, b: Path) -> float:
    left, right = (load_file(directory / "model" / "model.safetensors") for directory in (a, b))
    assert left.keys() == right.keys()
    return max(float((left[name] - right[name]).abs().max()) for name in left)


def test_two_processes_train_what_one_does_also_when_one_is_killed(directory: Path) -> None:
    argv = ["sft", "--model", "m", "--data", "d.jsonl", "--config", "c.yaml", "--out"]
    torch.set_num_threads(1)
    assert cli.run([*argv, "one", "--quiet"]) == 0
    killed = torchrun(*argv, "two", AYNI_FAILPOINT="kill:save-end")
    assert killed.returncode != 0
    assert (directory / "two" / "checkpoints").is_dir()
    done = torchrun(*argv, "two")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "sft: ran two\n"
    assert done.stderr.count("resumed at step 2") == 1
    assert difference(directory / "one", directory / "two") < 1e-6
    assert sorted(file.name for file in Path("two").iterdir()) == sorted(file.name for file in Path("one").iterdir())
    steps = [json.loads(line)["step"] for line in Path("two/metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 10))


def test_two_processes_run_a_recipe_and_one_of_them_writes(directory: Path) -> None:
    argv = ["run", "r.yaml", "--out", "run", "--json"]
    done = torchrun(*argv)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert [stage["state"] for stage in summary["stages"]] == ["ran", "ran"]
    assert done.stderr.count("[2/2] reward: ran") == 1
    for stage in summary["stages"]:
        seal = read_seal(Path(stage["directory"]))
        assert seal is not None
        assert damages(Path(stage["directory"]), seal, thorough=True) == {}
    assert (directory / "run" / "report" / "index.html").is_file()
    assert cli.run([*argv, "--quiet"]) == 0  # one process finds the work of two


def started(*argv: str, **environment: str) -> subprocess.Popen[str]:
    """`ayni run … --processes 2`, under way."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **environment}
    command = [sys.executable, "-m", "ayni", "run", *argv, "--processes", "2"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)


def processes(*argv: str, **environment: str) -> tuple[int, str, str]:
    """Its exit code, stdout and stderr."""
    running = started(*argv, **environment)
    stdout, stderr = running.communicate(timeout=120)
    return running.returncode, stdout, stderr


def children(parent: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def wait_for(path: Path) -> None:
    for _ in range(600):
        if path.exists():
            return
        time.sleep(0.1)
    raise AssertionError(f"{path} never came")


def test_the_recipe_says_how_many_unless_the_command_line_does(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched: list[int] = []
    monkeypatch.setattr("ayni.cli.processes.launch", lambda count: launched.append(count) or 0)
    monkeypatch.setattr("ayni.cli.processes.gpus", lambda: 0)
    argv = ["run", "r.yaml", "--out", "run", "--set", "processes=3"]
    assert cli.run(argv) == 0
    assert cli.run([*argv, "--processes", "2"]) == 0
    assert launched == [3, 2]
    assert cli.run([*argv, "--dry-run"]) == 0
    monkeypatch.setattr("ayni.cli.processes.gpus", lambda: 1)
    assert cli.run([*argv, "--quiet"]) == 0  # alone, in this process
    assert launched == [3, 2]


def test_run_starts_its_own_processes_and_continues_when_one_was_killed(directory: Path) -> None:
    code, _, stderr = processes("r.yaml", "--out", "run", AYNI_FAILPOINT="kill:save-end")
    assert code == 137
    assert "Traceback" not in stderr
    code, stdout, stderr = processes("r.yaml", "--out", "run", "--json")
    assert code == 0, stderr
    assert [stage["state"] for stage in json.loads(stdout)["stages"]] == ["ran", "ran"]
    assert stderr.count("resumed at step 2") == 1
    assert stderr.count("[2/2] reward: ran") == 1
    assert cli.run(["run", "r.yaml", "--out", "alone", "--quiet"]) == 0
    for name in ("sft", "reward"):
        one, two = (next((directory / run / "stages").glob(f"*-{name}-*")) for run in ("alone", "run"))
        assert difference(one, two) < 1e-5  # fp32, added up in another order


def test_two_processes_share_samples_scores_and_experience(directory: Path) -> None:
    """Every sample has random numbers of its own, so who draws it changes nothing."""
    with open("prompts.jsonl", "w") as file:
        for i in range(7):
            asked = [{"role": "user", "content": " ".join(WORDS[i:])}]
            file.write(json.dumps({"id": str(i), "messages": asked}) + "\n")
    draws = {"prompts": ["prompts.jsonl"], "max_tokens": 8, "dtype": "fp32"}
    ppo = {"iterations": 2, "batch_size": 6, "mini_batch": 3, "optimiser": {"lr": 0.001}}
    stages = {
        "samples": {"kind": "reject", "model": "sft", "reward": "reward", "n": 3, "finished_only": False, **draws},
        "ppo": {"model": "sft", "reward_helpfulness": "reward", **ppo, **draws},
        "evaluate": {"model": "ppo", "against": "sft", "judge": "reward", **draws},
    }
    Path("r2.yaml").write_text(json.dumps({"extends": "r.yaml", "stages": stages}))
    code, _, stderr = processes("r2.yaml", "--out", "run", "--quiet")
    assert code == 0, stderr
    assert cli.run(["run", "r2.yaml", "--out", "alone", "--quiet"]) == 0

    def made(run: str, name: str) -> Path:
        return next((directory / run / "stages").glob(f"*-{name}-*"))

    def kept(run: str) -> list[tuple[str, list[int], str]]:
        groups = json.loads((made(run, "samples") / "samples.jsonl").read_text())
        return [(s["prompt_id"], s["tokens"], s["text"]) for group in groups for s in group]

    assert len(kept("run")) == 21
    assert kept("run") == kept("alone")
    records = [(made(run, "samples") / "records.jsonl").read_text() for run in ("run", "alone")]
    assert records[0] == records[1]
    assert difference(made("run", "ppo"), made("alone", "ppo")) < 1e-5
    measured = []
    for run in ("run", "alone"):
        rows = json.loads((made(run, "evaluate") / "results.json").read_text())["results"]
        measured.append({(r["metric"], r["axis"], r["model"]): r["value"] for r in rows})
    assert measured[0].keys() == measured[1].keys()
    assert measured[0] == pytest.approx(measured[1], abs=1e-3)


def test_a_bad_recipe_is_one_line_and_exit_2(directory: Path) -> None:
    code, stdout, stderr = processes("r.yaml", "--out", "run", "--set", "stages.sft.lr=3")
    assert (code, stdout) == (2, "")
    assert stderr.startswith("--set stages.sft.lr=3: ")
    assert len(stderr.splitlines()) == 1
    assert not Path("run").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="finds the children in /proc")
@pytest.mark.parametrize("ended", ["command", "follower"])
def test_when_one_ends_all_end(directory: Path, ended: str) -> None:
    running = started("r.yaml", "--out", "run", "--quiet", "--set", "stages.sft.epochs=100000")
    wait_for(Path("run/stages"))
    first, second = children(running.pid)
    (running.terminate if ended == "command" else lambda: os.kill(second, signal.SIGKILL))()
    _, stderr = running.communicate(timeout=60)
    assert "Traceback" not in stderr
    if ended == "command":
        assert running.returncode == 143
        assert stderr == "interrupted; the same command continues\n"
    else:
        assert running.returncode in (1, 143)  # the first process saw it, or was told
        assert stderr.endswith("the same command continues\n")
    for pid in (first, second):
        assert not Path(f"/proc/{pid}").exists()
