"""What stages compute, held against counts by hand; kills do not change it; as much again can be trained."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from small_stages import FIT, Small, prepare
from tiny import language_model, policy, prompts, tokenizer

from ayni.errors import BadInput
from ayni.files import read_json, write_json
from ayni.formats.reading import read_demonstrations
from ayni.model.compute import METER, Compute, of_tokens, weights_met
from ayni.model.role import Role
from ayni.model.shape import Shape
from ayni.records import TokenSequence
from ayni.rollout import store
from ayni.rollout.beams import diverse_rollout
from ayni.rollout.engine import rollout
from ayni.rollout.local import load_engine
from ayni.rollout.sampling import Sampling
from ayni.rollout.store import draw_all, read_groups
from ayni.runs.pipeline import run_recipe
from ayni.text.chat import render
from ayni.train.batch import batch_of
from ayni.train.equal_compute import epochs_for


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Small]:
    return prepare(tmp_path_factory.mktemp("inputs"))


def spent(directory: Path) -> Compute:
    return Compute(**read_json(directory / "compute.json"))


def weights_by_hand(shape: Shape, head: int) -> int:
    attention = 2 * shape.dim * shape.dim + 2 * shape.dim * shape.kv_heads * shape.head_dim
    return shape.layers * (attention + 3 * shape.dim * shape.hidden + 2 * shape.dim) + shape.dim + head


@pytest.mark.parametrize("tied", [False, True])
def test_weights_that_a_token_meets(tied: bool) -> None:
    shape = Shape(16, 2, 2, 1, 24, 290, tied=tied)
    assert weights_met(shape) == weights_by_hand(shape, 290 * 16)
    score = Shape(16, 2, 2, 1, 24, 290, tied=tied, head="score")
    assert weights_met(score) == weights_by_hand(score, 16)


def test_reading_counts_once_and_learning_three_times() -> None:
    role = Role(language_model())
    batch = batch_of([TokenSequence([5, 6, 7, 8], [False, True, True, True]), TokenSequence([9, 5], [False, True])])
    weights = weights_met(role.model.shape)
    METER.set(Compute())
    with torch.no_grad():
        role.logprobs(batch)
    assert METER.read == Compute(6, 0, 2 * weights * 6)
    role.logprobs(batch).sum().backward()
    assert METER.read == Compute(12, 6, 2 * weights * 6 + 6 * weights * 6)


def test_sampling_counts_a_prompt_once_and_every_token_drawn() -> None:
    engine = policy()
    METER.set(Compute())
    groups = rollout(engine, prompts(5), n=3, sampling=Sampling(1.0, 1.0, 9), seed=0)
    tokens = sum(len(g[0].prompt_tokens) + sum(len(s.tokens) for s in g) for g in groups)
    assert METER.read == of_tokens(engine.role.model.shape, tokens)


def test_beams_count_as_samples_do() -> None:
    engine = policy()
    METER.set(Compute())
    groups = diverse_rollout(engine, prompts(5), groups=3, penalty=1.0, max_tokens=9)
    tokens = sum(len(g[0].prompt_tokens) + sum(len(s.tokens) for s in g) for g in groups)
    assert METER.read == of_tokens(engine.role.model.shape, tokens)


def test_a_store_that_goes_on_counts_what_was_drawn_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, asked, path = policy(), prompts(8), tmp_path / "samples.jsonl"

    def draw_some(drawn: int, chunk: int = 2) -> Compute:
        """All chunks, or a kill after so many."""
        calls = iter(range(drawn + 1))

        def draw(part: Any) -> Any:
            if next(calls) == drawn:
                raise RuntimeError("killed")
            return rollout(engine, part, n=2, sampling=Sampling(1.0, 1.0, 6), seed=0)

        METER.set(Compute())
        draw_all(path, asked, draw, chunk=chunk, progress=lambda done, total: None)
        return METER.read

    whole = draw_some(4)
    assert whole.forward > 0
    path.unlink()
    for lost in (1, 1):  # killed twice, each time after one chunk more
        with pytest.raises(RuntimeError, match="killed"):
            draw_some(lost)
    with monkeypatch.context() as patch:  # and once between what a chunk cost and the chunk
        patch.setattr(store, "failpoint", lambda name: (_ for _ in ()).throw(RuntimeError("killed")))
        with pytest.raises(RuntimeError, match="killed"):
            draw_some(9)
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))
    assert draw_some(9) == whole
    assert len(read_groups(path)) == 8


def test_sft_computes_what_its_tokens_say(stages: dict[str, Small], tmp_path: Path) -> None:
    small = stages["sft"]
    small.execute(tmp_path / "sft")
    (data,) = small.inputs["data"]  # type: ignore[misc]
    per_epoch = sum(len(render(d.dialog, tokenizer()).tokens) for d in read_demonstrations(data))
    shape = load_engine(tmp_path / "sft" / "model").role.model.shape
    assert spent(tmp_path / "sft") == of_tokens(shape, 2 * per_epoch, backward=True)
    assert "compute.json" in read_json(tmp_path / "sft" / "DONE.json")["files"]


@pytest.mark.parametrize("kind", ["sft", "reject", "ppo", "rrhf"])
def test_a_kill_changes_no_count(
    stages: dict[str, Small], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    stages[kind].execute(tmp_path / "whole")
    whole_seconds = read_json(tmp_path / "whole" / "DONE.json")["seconds"]

    class KilledError(Exception):
        pass

    left = [3]

    def failpoint(name: str) -> None:
        left[0] -= name in ("save-end", "chunk-written")
        if not left[0]:
            raise KilledError

    class Slow:
        """A clock on which fifty seconds pass whenever somebody looks."""

        monotonic = itertools.count(0.0, 50.0).__next__

    monkeypatch.setattr("ayni.model.compute.time", Slow)
    for module in ("ayni.train.checkpoint", "ayni.rollout.store"):
        monkeypatch.setattr(f"{module}.failpoint", failpoint)
    if kind in ("reject", "ppo"):
        left[0] = 2  # they have no third
    with pytest.raises(KilledError):
        stages[kind].execute(tmp_path / "killed")
    monkeypatch.undo()
    stages[kind].execute(tmp_path / "killed")
    assert spent(tmp_path / "killed") == spent(tmp_path / "whole")
    assert spent(tmp_path / "whole").flops > 0
    # nor what the part that was kept took
    assert read_json(tmp_path / "killed" / "DONE.json")["seconds"] > 50 > whole_seconds


def test_more_sft_at_equal_compute(stages: dict[str, Small], tmp_path: Path) -> None:
    for kind in ("sft", "reject"):
        stages[kind].execute(tmp_path / kind)
    files = [tmp_path / kind / "compute.json" for kind in ("sft", "reject")]
    more = Small("sft", stages["sft"].settings, {**stages["sft"].inputs, "spent": files})
    more.execute(tmp_path / "more")
    wanted = spent(tmp_path / "sft") + spent(tmp_path / "reject")
    step = spent(tmp_path / "sft").flops / 8  # two epochs of four steps
    assert abs(spent(tmp_path / "more").flops - wanted.flops) < 2 * step
    lines = (tmp_path / "more" / "metrics.jsonl").read_text().splitlines()
    assert len(lines) > 8
    write_json(tmp_path / "compute.json", {"forward": 0, "backward": 0, "flops": 0})
    with pytest.raises(BadInput, match="spent: nothing was computed there"):
        epochs_for([tmp_path / "compute.json"], Shape(16, 2, 2, 1, 24, 290), [TokenSequence([1], [True])])


def test_a_run_says_what_each_stage_computed(stages: dict[str, Small], tmp_path: Path) -> None:
    at = Path(stages["sft"].inputs["model"]).parent  # type: ignore[arg-type]
    body = {"kind": "sft", "model": f"{at}/base", "data": [f"{at}/demonstrations.jsonl"], **FIT, "batch_size": 5}
    words = {"kind": "tokenizer", "data": f"{at}/corpus.jsonl", "vocab_size": 300}
    recipe = {"stages": {"words": words, "first": body, "more": {**body, "spent": ["first", "first"]}}}
    (tmp_path / "r.yaml").write_text(json.dumps(recipe))
    summary = run_recipe(tmp_path / "r.yaml", tmp_path / "run", quiet=True)
    rows = {row["model"]: row for row in summary["results"] if row["metric"] == "compute"}
    assert list(rows) == ["first", "more"]  # a tokenizer multiplies nothing
    assert rows["more"]["value"] == pytest.approx(2 * rows["first"]["value"], rel=0.3)
    assert rows["first"]["n"] > 0
