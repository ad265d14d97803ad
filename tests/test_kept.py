"""What is never lost: work that took time, files of other people, what a stage reads. And the dead do not work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import test_pipeline
from small_stages import Small, prepare
from test_pipeline import go, recipe
from tiny import policy, policy_model, prompts, tokenizer

from ayni.config import Config
from ayni.errors import BadInput
from ayni.files import write_text
from ayni.model.score_head import with_score_head
from ayni.model_directory import save_model
from ayni.rollout.engine import with_room
from ayni.run import Run
from ayni.runs.execution import execute
from ayni.runs.faces import load_stage
from ayni.runs.ownership import is_held, locked
from ayni.runs.pipeline import run_recipe
from ayni.runs.reading import read_run

__all__ = ["recipe"]


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Small]:
    return prepare(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(autouse=True)
def _fakes() -> None:
    test_pipeline.install()


@pytest.mark.parametrize("work", ["samples.jsonl", "checkpoints/step-00000001/state.safetensors", "model/weights"])
def test_bad_input_found_late_takes_no_work_with_it(work: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def late(config: Config, inputs: dict[str, Path], run: Run) -> None:
        run.log(1, value=1.0)
        run.tuned(dtype="fp32")
        if os.environ.get("WORKED"):
            write_text(run.directory / work, "hours")
        raise BadInput("found late")

    stage = load_stage("fakerecords")
    monkeypatch.setattr(sys.modules["ayni.stages.fakerecords"], "run", late)
    stage = load_stage("fakerecords")
    with pytest.raises(BadInput, match="found late"):
        execute("fakerecords", stage.config(), {}, tmp_path / "a" / "out", name="n", seed=0)
    assert not (tmp_path / "a").exists()  # nothing was worked for: nothing is left
    monkeypatch.setenv("WORKED", "1")
    with pytest.raises(BadInput, match="found late"):
        execute("fakerecords", stage.config(), {}, tmp_path / "a" / "out", name="n", seed=0)
    assert (tmp_path / "a" / "out" / work).read_text() == "hours"


def test_a_run_keeps_it_too(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def late(config: Config, inputs: dict[str, Path], run: Run) -> None:
        write_text(run.directory / "samples.jsonl", "hours")
        raise BadInput("found late")

    monkeypatch.setattr(sys.modules["ayni.stages.fakerecords"], "run", late)
    with pytest.raises(BadInput, match="found late"):
        go(recipe)
    assert [path.read_text() for path in (recipe.parent / "run").rglob("samples.jsonl")] == ["hours"]


@pytest.mark.parametrize("kind", ["ppo", "reject", "rrhf"])
def test_answers_that_no_judge_could_read_are_not_drawn(kind: str, stages: dict[str, Small], tmp_path: Path) -> None:
    """A reward model with a shorter context than the policy's, from the same tokenizer."""
    narrow = tmp_path / "narrow"
    save_model(narrow, with_score_head(policy_model(0, context=40), 0), tokenizer())
    small = stages[kind]
    reward = "reward_helpfulness" if kind == "ppo" else "reward"
    inputs = {**small.inputs, reward: narrow}
    inputs.pop("validation", None)
    one = Small(kind, {**small.settings, "validate_every": 0} if kind == "ppo" else small.settings, inputs)
    with pytest.raises(BadInput) as found:
        one.execute(tmp_path / "out", max_tokens=40)
    assert "no prompt leaves room for 40 tokens in the reward model's context of 40; lower max_tokens" in str(
        found.value
    )
    assert not (tmp_path / "out").exists()
    assert one.execute(tmp_path / "out", max_tokens=10) == "ran"


def test_prompts_whose_answers_may_be_too_long_to_judge_are_dropped_and_counted() -> None:
    said: list[str] = []
    asked = sorted(prompts(8), key=lambda prompt: len(prompt.dialog[-1].content))
    kept = with_room(asked, [policy()], said.append, max_tokens=20, read=40)
    assert 0 < len(kept) < 8
    assert said == [
        f"{8 - len(kept)} of 8 prompts dropped: answers of 20 tokens may not fit the reward model's context of 40"
    ]


@pytest.mark.parametrize("name", ["inputs.json", "DONE.json", "status.json", "recipe.yaml"])
@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"run": "mine"}', "name: mine\nstages: {}\n"])
def test_a_file_that_is_called_like_one_of_ours_makes_no_directory_ours(
    name: str, content: str, recipe: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / name).write_text(content)
    (mine / "thesis.tex").write_text("precious")
    stage = load_stage("fakerecords")
    for fresh in (False, True):
        with pytest.raises(BadInput, match="holds files that are no stage's"):
            execute("fakerecords", stage.config(), {}, mine, name="n", seed=0, fresh=fresh)
        with pytest.raises(BadInput, match="holds files that are no run's"):
            run_recipe(recipe, mine, quiet=True, fresh=fresh)
    assert sorted(path.name for path in mine.iterdir()) == sorted([name, "thesis.tex"])
    assert (mine / name).read_text() == content


def test_a_run_does_not_write_over_its_own_recipe(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = recipe.parent / "own"
    own.mkdir()
    (recipe.parent / "source.txt").rename(own / "source.txt")
    recipe = recipe.rename(own / "recipe.yaml")
    text = recipe.read_text()
    monkeypatch.chdir(own)
    with pytest.raises(BadInput, match="holds files that are no run's"):
        run_recipe(Path("recipe.yaml"), Path("."), quiet=True)
    assert recipe.read_text() == text


def test_a_stage_does_not_write_over_what_it_reads(tmp_path: Path) -> None:
    stage, fit = load_stage("fakerecords"), load_stage("fakefit")
    out = tmp_path / "out"
    execute("fakerecords", stage.config(), {}, out, name="n", seed=0)
    kept = (out / "records.jsonl").read_text()
    for given in (out / "records.jsonl", tmp_path / "link"):
        if given.name == "link":
            given.symlink_to(out / "records.jsonl")
        with pytest.raises(BadInput, match="is read by the stage that would write there; choose another --out"):
            execute("fakefit", fit.config(), {"data": [given]}, out, name="n", seed=0, fresh=True)
    assert (out / "records.jsonl").read_text() == kept


CHILD = """
import sys; sys.path[:0] = [{tests!r}]
from pathlib import Path
import test_pipeline
test_pipeline.install()
from ayni.runs.ownership import is_held, locked
from ayni.runs.pipeline import run_recipe
run_recipe(Path(sys.argv[1]), Path(sys.argv[2]), quiet=True)
"""


def test_whoever_was_killed_is_not_running(recipe: Path, tmp_path: Path) -> None:
    child = [sys.executable, "-c", CHILD.format(tests=str(Path(__file__).parent)), str(recipe), str(tmp_path / "run")]
    killed = subprocess.run(child, env={**os.environ, "AYNI_FAILPOINT": "kill:step-1"}, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert json.loads((tmp_path / "run" / "status.json").read_text())["status"] == "running"  # it could not say more
    run = read_run(tmp_path / "run")
    assert (run.status, run.stages[0].state) == ("interrupted", "interrupted")
    with locked(tmp_path / "run"):
        assert is_held(tmp_path / "run")
        run = read_run(tmp_path / "run")
    assert (run.status, run.stages[0].state) == ("running", "running")
