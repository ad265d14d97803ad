"""What a reward model's directory says of its scores, and what is made of it: anchors, thresholds, critics, sums."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import refused
from small_stages import ANCHORED, Small, comparisons, prepare
from tiny import policy, prompts, reward_model, tokenizer

from ayni.cli.chat import chat
from ayni.cli.choosing import Choice
from ayni.cli.inspect import inspect
from ayni.conversion import export_model, import_model
from ayni.files import write_jsonl
from ayni.model.role import Role
from ayni.model.score_scale import Anchor, Normalisation, ScoreScale
from ayni.model_directory import read_extra, save_model
from ayni.records import Comparison, TokenSequence, to_dict
from ayni.reward.combine import CombinedReward
from ayni.reward.model import RewardModel, load_reward
from ayni.rollout.engine import rollout
from ayni.rollout.sampling import Sampling
from ayni.stages import ppo, reward
from ayni.train.batch import Pair, batch_of

NORMAL = Normalisation(3.0, 2.0, 50)
BY_DEFAULT = {"safety_weight": None, "other_share": None, "start_answers": 20, "max_tokens": 30}


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Small]:
    return prepare(tmp_path_factory.mktemp("inputs"))


def given(small: Small, **inputs: Any) -> Small:
    return Small(small.kind, small.settings, {k: v for k, v in {**small.inputs, **inputs}.items() if v is not None})


def metrics(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


# anchors


def test_a_safety_model_is_anchored_by_default_where_labels_exist(stages: dict[str, Small], tmp_path: Path) -> None:
    stages["reward"].execute(tmp_path / "rm", **BY_DEFAULT)
    assert "safety_loss" in metrics(tmp_path / "rm")[0]
    assert load_reward(tmp_path / "rm" / "model").scale.anchor == Anchor(1.0, safe=9, unsafe=7)
    line = "- safety anchor: 9 safe and 7 unsafe labelled answers, λ 1\n"
    assert line in (tmp_path / "rm" / "model" / "README.md").read_text()


@pytest.mark.parametrize("label", [None, "both_safe"])
def test_without_labels_of_both_kinds_a_safety_model_says_that_it_has_no_anchor(
    label: Any, stages: dict[str, Small], tmp_path: Path
) -> None:
    write_jsonl(tmp_path / "data.jsonl", (to_dict(replace(c, safety=label)) for c in comparisons(24)))
    given(stages["reward"], data=[tmp_path / "data.jsonl"]).execute(tmp_path / "rm", **BY_DEFAULT)
    assert "safety_loss" not in metrics(tmp_path / "rm")[0]
    anchor = load_reward(tmp_path / "rm" / "model").scale.anchor
    assert anchor is not None
    assert not anchor.holds
    assert "- safety anchor: none (" in (tmp_path / "rm" / "model" / "README.md").read_text()


def test_a_tenth_of_a_safety_models_pairs_is_of_the_other_task_by_default(
    stages: dict[str, Small], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And none of a prompt that is judged for safety: there the guidelines contradict each other."""
    safe = [replace(c, task="safety") for c in comparisons(18)]
    twice = [replace(c, task="helpfulness", chosen=c.rejected, rejected=c.chosen) for c in safe]
    others = [replace(c, task="helpfulness") for c in comparisons(10, seed=5)]
    write_jsonl(tmp_path / "data.jsonl", map(to_dict, [*safe, *twice, *others]))
    seen: list[Pair] = []
    learned: list[Comparison] = []
    pair_of = reward.pair_of

    def noted(c: Comparison, *rest: Any) -> Pair:
        learned.append(c)
        return pair_of(c, *rest)

    monkeypatch.setattr(reward, "pair_of", noted)
    monkeypatch.setattr(reward.Config, "fit", lambda self, model, items, objective, run: seen.extend(items))
    small = given(stages["reward"], data=[tmp_path / "data.jsonl"], heldout=[stages["reward"].inputs["heldout"][0]])  # type: ignore[index]
    small.execute(tmp_path / "rm", **BY_DEFAULT)
    home = {c.prompt.dialog for c in safe}
    drawn = [c for c in learned[: len(seen)] if c.task == "helpfulness"]
    assert len(drawn) == 2  # of 20
    assert not [c for c in drawn if c.prompt.dialog in home]


@pytest.mark.parametrize("kind", ["reject", "rrhf", "ppo", "evaluate"])
def test_a_threshold_on_scores_without_an_anchor_is_refused(
    kind: str, stages: dict[str, Small], tmp_path: Path
) -> None:
    """σ < 0.15 would divide wherever the ranking happened to leave the scores; an imported model says nothing."""
    unknown = tmp_path / "unknown"
    save_model(unknown, reward_model(2), tokenizer())
    small = stages.get(kind)
    if small is None:
        inputs = {key: stages["reject"].inputs[key] for key in ("model", "reward", "prompts")}
        inputs |= {"judge": [inputs["reward"]]}
        small = Small("evaluate", {"best_of": 2, "max_tokens": 8, "dtype": "fp32"}, inputs)
    small = given(small, reward_safety=unknown)
    said = refused(lambda: small.execute(tmp_path / "refused"))
    assert "unknown: threshold: the safety model's scores are not anchored" in said
    assert "set threshold to 0" in said
    assert not (tmp_path / "refused").exists()
    small.execute(tmp_path / "tags", threshold=0.0)
    save_model(unknown, reward_model(2), tokenizer(), extra=ANCHORED.noted())
    small.execute(tmp_path / "anchored")


def test_chat_refuses_a_threshold_without_an_anchor(tmp_path: Path) -> None:
    for name, extra in (("helpful", {}), ("unknown", {})):
        save_model(tmp_path / name, reward_model(1), tokenizer(), extra=extra)
    save_model(tmp_path / "model", policy().role.model, tokenizer())
    choice = Choice(2, tmp_path / "helpful", tmp_path / "unknown")
    said = refused(lambda: chat(tmp_path / "model", "", choice, 1.0, 1.0, 8, 0))
    assert "not anchored to safety labels, so σ < 0.15 means nothing" in said


def test_what_a_directory_says_of_its_scores_must_be_sound(tmp_path: Path) -> None:
    save_model(tmp_path / "rm", reward_model(1), tokenizer())
    for note, says in (
        ({"anchor": {"safety_weight": 1.0, "safe": 3}}, "anchor.unsafe: Field required"),
        ({"normalisation": {"mean": 0.0, "deviation": 0.0, "answers": 3}}, "deviation: 0.0 is not a number > 0"),
        ({"normalization": {}}, "normalization: Unexpected keyword argument"),
    ):
        (tmp_path / "rm" / "ayni.json").write_text(json.dumps({"reward": note}))
        said = refused(lambda: load_reward(tmp_path / "rm"))
        assert "ayni.json" in said
        assert says in said


# normalisation


def test_a_reward_model_keeps_the_mean_and_deviation_of_its_start_models_answers(
    stages: dict[str, Small], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    start_answers = reward.start_answers
    with monkeypatch.context() as patch:
        patch.setattr(reward, "start_answers", lambda *given: drawn.extend(start_answers(*given)) or drawn)
        stages["reward"].execute(tmp_path / "rm", **BY_DEFAULT)
    model = load_reward(tmp_path / "rm" / "model")
    scores = model.score_samples([p for p, _ in drawn], [group for _, group in drawn], tokenizer())
    found = model.scale.normalisation
    assert found is not None
    assert found.answers == len(drawn) >= 5
    assert {sample.finished for _, (sample,) in drawn} == {"stop"}  # a score is read at EOS
    assert found.mean == pytest.approx(float(scores.mean()), abs=1e-5)
    assert found.deviation == pytest.approx(float(scores.std()), rel=1e-4)
    assert "- raw scores: mean" in (tmp_path / "rm" / "model" / "README.md").read_text()
    stages["reward"].execute(tmp_path / "none", **{**BY_DEFAULT, "start_answers": 0})
    assert load_reward(tmp_path / "none" / "model").scale.normalisation is None


def test_exports_and_adapters_keep_the_numbers(stages: dict[str, Small], tmp_path: Path) -> None:
    stages["reward"].execute(tmp_path / "rm", **BY_DEFAULT, lora={"rank": 4})
    scale = load_reward(tmp_path / "rm" / "model").scale
    assert scale.normalisation is not None
    export_model(tmp_path / "rm" / "model", tmp_path / "merged", "hf")
    import_model(tmp_path / "merged", tmp_path / "imported")
    for name in ("merged", "imported"):
        assert load_reward(tmp_path / name).scale == scale
        assert f"- raw scores: {scale.normalisation}" in (tmp_path / name / "README.md").read_text()


def test_the_critic_starts_on_the_scale_of_whitened_rewards(stages: dict[str, Small], tmp_path: Path) -> None:
    """Rewards are whitened, so a critic that started at raw scores would start off their scale."""
    save_model(tmp_path / "helpful", reward_model(1), tokenizer(), extra=ScoreScale(None, NORMAL).noted())
    model, config = load_reward(tmp_path / "helpful"), ppo.Config()
    run: Any = type("Run", (), {"seed": 1, "name": "ppo"})
    critic = ppo.critic_of(model, tokenizer(), config, {}, run)
    sequence = batch_of([TokenSequence([1, 40, 41, 42, 43], [False, False, True, True, True])])
    raw = Role(reward_model(1)).values(sequence)
    for role in (critic, critic.replica()):  # each core has a replica
        assert torch.allclose(role.values(sequence), (raw - 3) / 2, atol=1e-6)
    small = given(stages["ppo"], reward_helpfulness=tmp_path / "helpful")
    quick = {"iterations": 1, "validate_every": 0, "snapshot_every": 0, "critic_warmup": 0}
    small.execute(tmp_path / "ppo", **quick)
    assert read_extra(tmp_path / "ppo" / "critic") == ScoreScale(None, NORMAL).noted("critic")
    # what it expects is painted as it learned it
    write_jsonl(tmp_path / "pairs.jsonl", map(to_dict, comparisons(1)))
    painted = inspect(tmp_path / "pairs.jsonl", None, tmp_path / "ppo" / "critic", None, 1, True)["prefixes"][0]
    shutil.copytree(tmp_path / "ppo" / "critic", tmp_path / "bare")
    (tmp_path / "bare" / "ayni.json").unlink()
    bare = inspect(tmp_path / "pairs.jsonl", None, tmp_path / "bare", None, 1, True)["prefixes"][0]
    assert painted["values"] == pytest.approx([(value - 3) / 2 for value in bare["values"]], abs=1e-5)


def test_scores_are_centred_before_two_models_are_combined() -> None:
    """A ranking loss leaves a shift free, and where two models decide between answers it must not."""
    asked = [*prompts(3), *prompts(2, seed=1, task="safety")]
    groups = rollout(policy(), asked, n=2, sampling=Sampling(1.0, 1.0, 6), seed=3)

    def judge(seed: int, scale: ScoreScale) -> RewardModel:
        return RewardModel(Role(reward_model(seed)), tokenizer(), "", scale)

    normal, other = ScoreScale(None, NORMAL), ScoreScale(None, Normalisation(-5.0, 1.0, 9))
    plain = CombinedReward(judge(1, ScoreScale()), judge(2, ScoreScale()), tokenizer(), 0.0)(asked, groups)
    both = CombinedReward(judge(1, normal), judge(2, other), tokenizer(), 0.0)(asked, groups)
    assert torch.equal(both.helpfulness, plain.helpfulness)  # what is logged is raw
    assert torch.allclose(both.combined[:6], plain.helpfulness[:6] - 3)
    assert torch.allclose(both.combined[6:], plain.combined[6:] + 5)
    # labels say where an anchored model's zero is
    anchored = replace(ANCHORED, normalisation=other.normalisation)
    kept = CombinedReward(judge(1, normal), judge(2, anchored), tokenizer(), 0.0)(asked, groups)
    assert torch.equal(kept.combined[6:], plain.combined[6:])
    alone = CombinedReward(judge(1, normal), None, tokenizer())(asked, groups)
    assert torch.equal(alone.combined, plain.helpfulness)


def test_a_judges_scores_are_told_in_its_own_deviations_too(stages: dict[str, Small], tmp_path: Path) -> None:
    save_model(tmp_path / "judge", reward_model(1), tokenizer(), extra=ScoreScale(None, NORMAL).noted())
    inputs = {key: stages["reject"].inputs[key] for key in ("model", "prompts")}
    Small("evaluate", {"max_tokens": 8, "dtype": "fp32"}, {**inputs, "judge": [tmp_path / "judge"]}).execute(
        tmp_path / "e"
    )
    rows = json.loads((tmp_path / "e" / "results.json").read_text())["results"]
    found = {(r["metric"], r["axis"]): r["value"] for r in rows}
    for axis in ("helpfulness", "safety"):
        assert found["score_normalised", axis] == pytest.approx((found["score", axis] - 3) / 2, abs=1e-5)
