"""Little data: residual dropout that any cut drops alike, the step that is kept, the penalty for repeating."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_models import refused
from small_recipes import RECIPES, unmeasured
from small_stages import Small, contents, prepare
from tiny import answered, language_model, policy, policy_model, prompts, tokenizer

from ayni.evaluate.checkpoint_choice import CheckpointChoice
from ayni.files import Killed, write_jsonl
from ayni.model.dropout import Dropout
from ayni.model.layout import Layout
from ayni.model.role import Role
from ayni.model_directory import load_model
from ayni.parallel import Ranks
from ayni.records import Prompt, TokenSequence, to_dict
from ayni.rollout.engine import rollout
from ayni.rollout.sampling import Sampling
from ayni.train.batch import batch_of
from ayni.train.gradient import accumulate
from ayni.train.objectives import NextToken
from ayni.train.trainer import Optimiser, Trainer
from ayni.village.village import Village

VOCAB = 40


def sequences(count: int, seed: int = 0) -> list[TokenSequence]:
    draw = np.random.default_rng(seed)
    return [answered(draw, vocab=VOCAB, prompt=6, answer=20) for _ in range(count)]


# dropout


def test_the_rate_rises_from_none_at_the_bottom_to_the_top() -> None:
    dropout = Dropout(0.3, 1)
    assert [dropout.rate(layer, 4) for layer in range(4)] == pytest.approx([0, 0.1, 0.2, 0.3])
    assert dropout.rate(0, 1) == 0


def test_so_many_are_dropped_and_the_mean_stays() -> None:
    tokens, positions = torch.randint(3, VOCAB, (4000,)), torch.arange(4000) % 20
    columns = Dropout(0.3, 7).on(tokens, positions, 4)
    x = torch.ones(4000, 50)
    for layer in range(4):
        for which in (0, 1):
            y = columns.drop(x, layer, which)
            share = 0.1 * layer
            assert float((y == 0).float().mean()) == pytest.approx(share, abs=0.005)
            assert float(y.mean()) == pytest.approx(1, abs=0.01)
            assert {round(float(v), 4) for v in y.unique()} <= {0.0, round(1 / (1 - share), 4)}
    # and each place by itself: no channel and no column is spared
    dropped = (columns.drop(x, 3, 0) == 0).float()
    assert 0.25 < float(dropped.mean(0).min()) < float(dropped.mean(0).max()) < 0.35
    # layers and branches draw by themselves
    alike = (dropped == (columns.drop(x, 3, 1) == 0).float()).float().mean()
    assert float(alike) == pytest.approx(0.3**2 + 0.7**2, abs=0.01)


def test_what_is_dropped_depends_on_the_sequence_and_the_step_alone() -> None:
    many = sequences(6)
    x = torch.ones(sum(len(s.tokens) for s in many), 16)

    def dropped(some: list[TokenSequence], dropout: Dropout) -> list[torch.Tensor]:
        batch = batch_of(some)
        kept = dropout.on(batch.tokens, batch.layout.positions, 2).drop(x[: len(batch.tokens)], 1, 0)
        return list(kept.split([len(s.tokens) for s in some]))

    one = Dropout(0.5, 3).at(1)
    together = dropped(many, one)
    for i, sequence in enumerate(many):
        assert torch.equal(dropped([sequence], one)[0], together[i])
    backwards = dropped(many[::-1], one)[::-1]
    assert all(torch.equal(a, b) for a, b in zip(together, backwards, strict=True))
    assert not torch.equal(dropped(many, one.at(2))[0], together[0])
    assert not any(torch.equal(a[:3], b[:3]) for a, b in pairwise(together))


@pytest.mark.parametrize("recompute", [False, True])
def test_any_cut_and_any_lanes_have_one_gradient(recompute: bool) -> None:
    examples, found = sequences(12), []
    for cut in ([12], [5, 7], [1] * 12):
        model = language_model(1, vocab=VOCAB, layers=3, dtype=torch.float64)
        model.dropout, model.recompute = Dropout(0.4, 5), recompute
        objective, start, batches = NextToken(), 0, []
        for size in cut:
            batches.append(objective.batch(examples[start : start + size]))
            start += size
        lanes = [batches[::2], batches[1::2]] if len(batches) > 1 else [batches]
        accumulate(Role(model), lanes, objective, Ranks())
        found.append({name: p.grad for name, p in model.named_parameters()})
    for other in found[1:]:
        for name, gradient in found[0].items():
            torch.testing.assert_close(other[name], gradient, rtol=1e-9, atol=1e-12, msg=name)
    plain = language_model(1, vocab=VOCAB, layers=3, dtype=torch.float64)
    accumulate(Role(plain), [[NextToken().batch(examples)]], NextToken(), Ranks())
    assert not torch.allclose(plain.layers[2].feed_forward.w2.weight.grad, found[0]["layers.2.feed_forward.w2.weight"])  # type: ignore[union-attr, arg-type]


def test_it_drops_while_the_gradient_is_computed_and_never_else() -> None:
    model, examples = language_model(1, vocab=VOCAB), sequences(8)
    tokens, layout = torch.tensor(examples[0].tokens), Layout.of([len(examples[0].tokens)])
    before = model(tokens, layout)
    # a learning rate of (nearly) nothing: only what is dropped tells the steps apart
    optimiser = Optimiser(lr=1e-30, warmup=0, weight_decay=0, schedule="constant")
    trainer = Trainer(Role(model), optimiser, steps=9, dropout=Dropout(0.5, 1))
    losses = [trainer.update(examples, NextToken())["loss"] for _ in range(3)]
    assert len(set(losses)) == 3
    assert torch.equal(model(tokens, layout), before)
    plain = Trainer(Role(model), optimiser, steps=9)
    assert len({plain.update(examples, NextToken())["loss"] for _ in range(3)}) == 1


# the step that is kept


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """The reward model prefers what the demonstrations do not teach, so that the last step is not the best."""
    directory = tmp_path_factory.mktemp("inputs")
    found = prepare(directory)["sft"]
    write_jsonl(directory / "validation-prompts.jsonl", map(to_dict, prompts(9, seed=2)))
    inputs = {**found.inputs, "validation": [directory / "validation-prompts.jsonl"], "reward": directory / "helpful"}
    choice = {"first": 1, "every": 0.5, "prompts": 6, "max_tokens": 12, "temperature": 1.0}
    return Small("sft", {**found.settings, "epochs": 3, "optimiser": {"lr": 3e-2}, "choice": choice}, inputs)


def looks(directory: Path) -> dict[int, float]:
    lines = map(json.loads, (directory / "metrics.jsonl").read_text().splitlines())
    return {line["step"]: line["validation_reward"] for line in lines if "validation_reward" in line}


def test_when_it_looks() -> None:
    assert CheckpointChoice().looks(32, 15 * 32) == [32 * epoch for epoch in range(5, 16)]
    assert CheckpointChoice(first=0, every=0.5).looks(4, 11) == [2, 4, 6, 8, 10, 11]
    assert CheckpointChoice(first=0.1, every=0.01).looks(3, 3) == [1, 2, 3]


def test_the_step_with_the_best_answers_is_kept(small: Small, tmp_path: Path) -> None:
    small.execute(tmp_path / "o")
    found = looks(tmp_path / "o")
    assert sorted(found) == [4, 6, 8, 10, 12]  # four steps an epoch
    best = max(found, key=lambda step: found[step])
    assert best < 12, found  # or this test shows nothing
    kept, _ = load_model(tmp_path / "o" / "model")
    # a run that looks at nothing else after that step, and takes it for the last: the same weights
    settings = {**small.settings, "choice": {**small.settings["choice"], "first": best / 4, "every": 9}}
    Small("sft", settings, small.inputs).execute(tmp_path / "only")
    only = looks(tmp_path / "only")
    assert only == {step: found[step] for step in (best, 12)}
    again, _ = load_model(tmp_path / "only" / "model")
    assert all(torch.equal(a, b) for a, b in zip(kept.parameters(), again.parameters(), strict=True))
    plain = {name: path for name, path in small.inputs.items() if name not in ("validation", "reward")}
    Small("sft", small.settings, plain).execute(tmp_path / "last")
    last, _ = load_model(tmp_path / "last" / "model")
    assert not torch.equal(last.tok_embeddings.weight, kept.tok_embeddings.weight)
    assert not (tmp_path / "o" / "checkpoints").exists()


@pytest.mark.parametrize("place", ["save-begin", "save-tensors", "save-renamed", "save-end", "stage-finished"])
def test_killed_anywhere_it_keeps_the_same(
    place: str, small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small.execute(tmp_path / "whole")
    from ayni.train import checkpoint

    hits = Counter[str]()

    def deadly(name: str) -> None:
        hits[name] += 1
        if name == place and hits[name] == 4:
            raise Killed(name)

    with monkeypatch.context() as patch:
        if place == "stage-finished":
            patch.setenv("AYNI_FAILPOINT", place)
        else:
            patch.setattr(checkpoint, "failpoint", deadly)
        with pytest.raises(Killed):
            small.execute(tmp_path / "o")
    assert small.execute(tmp_path / "o") == "ran"
    assert contents(tmp_path / "o") == contents(tmp_path / "whole")


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        ({"reward": None}, {}, "validation: validation prompts and a reward belong together"),
        ({"validation": None}, {}, "validation: validation prompts and a reward belong together"),
        ({}, {"choice": {"first": 3}}, "choice.first: the first look is after 3 epochs, and there are 3"),
        ({}, {"choice": {"every": 0.0}}, "choice.every: Input should be greater than 0"),
        ({}, {"dropout": 1.0}, "dropout: Input should be less than 1"),
    ],
)
def test_what_it_refuses(
    small: Small, tmp_path: Path, change: dict[str, Any], settings: dict[str, Any], message: str
) -> None:
    inputs = {name: path for name, path in {**small.inputs, **change}.items() if path is not None}
    assert message in refused(lambda: Small("sft", {**small.settings, **settings}, inputs).execute(tmp_path / "o"))
    assert not (tmp_path / "o").exists()


def test_only_those_who_ask_for_help_choose(small: Small, tmp_path: Path) -> None:
    """A model of helpfulness likes it when an unsafe request is obeyed."""
    asked = [replace(prompt, task="safety") for prompt in prompts(9, seed=3)]
    write_jsonl(tmp_path / "unsafe.jsonl", map(to_dict, asked))
    mine = Small("sft", small.settings, {**small.inputs, "validation": [tmp_path / "unsafe.jsonl"]})
    assert "no prompt asks for help" in refused(lambda: mine.execute(tmp_path / "o"))
    both = [*small.inputs["validation"], tmp_path / "unsafe.jsonl"]
    Small("sft", small.settings, small.inputs).execute(tmp_path / "alone")
    Small("sft", small.settings, {**small.inputs, "validation": both}).execute(tmp_path / "both")
    assert looks(tmp_path / "both") == looks(tmp_path / "alone")


def test_the_test_split_stays_shut(small: Small, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "test.jsonl", map(to_dict, Village(7).prompts("test", 5)))
    mine = Small("sft", small.settings, {**small.inputs, "validation": [tmp_path / "test.jsonl"]})
    assert "is of the test split, and this is no final evaluation" in refused(lambda: mine.execute(tmp_path / "o"))


def test_the_recipe_at_a_size_of_seconds(tmp_path: Path) -> None:
    few = ["few.limit=40", "few.epochs=2", "few.choice={first: 0, prompts: 6, max_tokens: 8}"]
    assert unmeasured(RECIPES / "lima.yaml", tmp_path / "run", *few) == []
    (kept,) = (tmp_path / "run" / "stages").glob("*-few-*")
    assert sorted(looks(kept)) == [2, 4]  # two steps an epoch


# the penalty for repeating


def test_a_penalised_model_repeats_itself_less() -> None:
    """And each answer is what it would be alone, whoever decodes beside it; without a penalty nothing has changed."""
    speaker, asked = policy(3), prompts(12)

    def answers(penalty: float, some: list[Prompt] = asked) -> list[tuple[int, ...]]:
        sampling = Sampling(0.7, 0.9, 24, penalty)
        return [group[0].tokens for group in rollout(speaker, some, n=1, sampling=sampling, seed=5)]

    def repeated(found: list[tuple[int, ...]]) -> float:
        return 1 - sum(len({*tokens}) for tokens in found) / sum(map(len, found))

    free, strict = answers(1.0), answers(3.0)
    assert repeated(strict) < repeated(free)
    assert [answers(3.0, [prompt])[0] for prompt in asked[:4]] == strict[:4]


@torch.no_grad()
def test_logprobs_of_a_penalised_sample_are_the_models() -> None:
    speaker = policy(3)
    ((sample,),) = rollout(speaker, prompts(1), n=1, sampling=Sampling(0.7, 1.0, 12, 2.0), seed=1)
    whole = [*sample.prompt_tokens, *sample.tokens]
    hidden = policy_model(3)(torch.tensor(whole), Layout.of([len(whole)]))
    table = torch.log_softmax(hidden @ policy_model(3).head.t() / 0.7, -1)
    own = [float(table[i - 1, whole[i]]) for i in range(len(sample.prompt_tokens), len(whole))]
    assert list(sample.logprobs) == pytest.approx(own, abs=1e-4)
    assert tokenizer().eos not in sample.tokens[:-1]
