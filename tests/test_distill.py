"""Context distillation: what is asked, how it is scored, and what is kept."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_stages import Small, prepare
from tiny import policy, prompts, tokenizer

from ayni.config import parse_config
from ayni.errors import BadInput
from ayni.evaluate.results import read_results
from ayni.files import write_jsonl
from ayni.formats.reading import read_demonstrations, read_prompts
from ayni.model.placement import Placement
from ayni.model.role import Role
from ayni.model_directory import load_model
from ayni.preprompts import GENERIC, TEMPLATE
from ayni.records import Comparison, Demonstration, Message, Prompt, Sample, to_dict, under
from ayni.reward.model import load_reward
from ayni.rollout.engine import rollout
from ayni.rollout.local import LocalEngine
from ayni.rollout.sampling import Sampling
from ayni.rollout.store import read_groups
from ayni.run import Run
from ayni.seeds import seed_of
from ayni.stages import distill
from ayni.text.chat import render_prompt


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return prepare(tmp_path_factory.mktemp("inputs"))["distill"]


def named(count: int, category: str) -> list[Prompt]:
    return [replace(p, category=category, id=f"{category}-{p.id}") for p in prompts(count, seed=3, task="safety")]


def test_an_answer_under_a_preprompt_becomes_a_demonstration_without_it(small: Small, tmp_path: Path) -> None:
    small.execute(tmp_path / "d")
    asked = {p.id: p for p in read_prompts(small.inputs["prompts"][0]) if p.task == "safety"}  # type: ignore[index]
    original, generic = (read_groups(tmp_path / "d" / f"samples-{way}.jsonl") for way in ("original", "generic"))
    assert [group[0].prompt_id for group in original] == [group[0].prompt_id for group in generic] == list(asked)
    said = []
    for before, after in zip(original, generic, strict=True):
        dialog = asked[before[0].prompt_id].dialog
        assert {s.prompt_tokens for s in before} == {tuple(render_prompt(dialog, tokenizer()))}
        with_one = [
            tuple(render_prompt((Message("system", text), *dialog), tokenizer())) for text in ("the owl", "a wise hare")
        ]
        assert len({s.prompt_tokens for s in after} & set(with_one)) == 1  # one preprompt a prompt
        said.append(with_one.index(after[0].prompt_tokens))
    assert len(set(said)) == 2
    kept = read_demonstrations(tmp_path / "d" / "records.jsonl")
    assert 0 < len(kept) < len(asked)
    for demonstration in kept:
        id = demonstration.source.rpartition(":")[2]
        assert demonstration.source == f"distill:generic:{id}"
        assert demonstration.dialog[:-1] == asked[id].dialog
        assert (demonstration.train, demonstration.finished) == ("last", "stop")


def test_what_is_kept_beats_the_original_as_an_answer_to_the_prompt_alone(small: Small, tmp_path: Path) -> None:
    """The scores are made again from the texts: no token of the preprompt may have counted."""
    small.execute(tmp_path / "d")
    asked = {p.id: p for p in read_prompts(small.inputs["prompts"][0])}  # type: ignore[index]
    safety = load_reward(Path(str(small.inputs["reward_safety"])), Placement())
    kept = {
        d.source.rpartition(":")[2]: d.dialog[-1].content for d in read_demonstrations(tmp_path / "d" / "records.jsonl")
    }
    means: dict[str, list[float]] = {}
    for before, after in zip(
        *(read_groups(tmp_path / "d" / f"samples-{way}.jsonl") for way in ("original", "generic")), strict=True
    ):
        id = before[0].prompt_id
        bare = tuple(render_prompt(asked[id].dialog, tokenizer()))
        scores = {}
        for way, group in (("original", before), ("generic", after)):
            scores[way] = safety.score_tokens([[*bare, *s.tokens] for s in group]).tolist()
            means.setdefault(way, []).extend(scores[way])
        ended = [(score, s.text) for score, s in zip(scores["generic"], after, strict=True) if s.finished == "stop"]
        best, text = max(ended, default=(-1e9, ""))
        assert kept.get(id) == (text if best > max(scores["original"]) else None)
    rows = {(row.metric, row.axis): row for row in read_results(tmp_path / "d" / "results.json")}
    for way, found in means.items():
        assert rows["safety_reward", way].value == pytest.approx(sum(found) / len(found), abs=1e-5)
        assert rows["safety_reward_median", way].value == pytest.approx(
            float(torch.tensor(found).double().quantile(0.5)), abs=1e-5
        )
    gain = sum(means["generic"]) / len(means["generic"]) - sum(means["original"]) / len(means["original"])
    assert rows["safety_reward_gain", "generic"].value == pytest.approx(gain, abs=1e-5)
    assert rows["improved", "generic"].value == pytest.approx(len(kept) / 16)
    assert {row.judge for row in rows.values()} == {"safe"}


def test_templates_go_by_risk_category(small: Small, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = [*named(3, "unsafe:climb:logic"), *named(2, "unsafe:eat:logic"), *named(2, "unsafe")]
    write_jsonl(tmp_path / "p.jsonl", map(to_dict, asked))
    mine = Small("distill", {**small.settings, "templates": {"climb": "the hill", "unsafe:eat:logic": "why"}},
                 {**small.inputs, "prompts": [tmp_path / "p.jsonl"]})  # fmt: skip
    mine.execute(tmp_path / "both", prefix="both", keep="all", n=2)
    ways = {way: read_groups(tmp_path / "both" / f"samples-{way}.jsonl") for way in ("original", "generic", "template")}
    assert {way: len(groups) for way, groups in ways.items()} == {"original": 7, "generic": 7, "template": 5}
    for prompt, group in zip(asked, ways["template"], strict=False):
        text = "the hill" if "climb" in prompt.category else "why"
        expected = render_prompt((Message("system", text), *prompt.dialog), tokenizer())
        assert group[0].prompt_tokens == tuple(expected)
    rows = [row for row in read_results(tmp_path / "both" / "results.json") if row.metric == "improved"]
    assert {row.axis: row.n for row in rows} == {"generic": 7, "template": 5}
    mine.execute(tmp_path / "template", prefix="template", keep="all", n=8)
    sources = Counter(d.source.split(":")[1] for d in read_demonstrations(tmp_path / "template" / "records.jsonl"))
    assert set(sources) == {"template"}
    assert not (tmp_path / "template" / "samples-generic.jsonl").exists()
    with pytest.raises(BadInput, match="templates: prefix is template, and there is none; give templates"):
        mine.execute(tmp_path / "none", prefix="template", templates={})
    with pytest.raises(
        BadInput, match="templates: no template is of a prompt's category, such as 'unsafe:climb:logic'"
    ):
        mine.execute(tmp_path / "none", prefix="template", templates={"fire": "x"})
    assert not (tmp_path / "none").exists()


def test_helpful_prompts_are_left_out_and_counted(
    small: Small, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = parse_config(distill.Config, {})
    run = Run(tmp_path / "r", name="distill")
    where = {"prompts": [tmp_path / "p.jsonl"]}
    safe, adversarial = prompts(5), prompts(3, task="safety")
    assert distill.adversarial([*safe, *adversarial], config, where, run) == adversarial
    assert "3 of 8 prompts are tagged safety" in capsys.readouterr().err
    with pytest.raises(BadInput, match="prompts: no prompt is tagged safety; give adversarial prompts"):
        distill.adversarial(safe, config, where, run)


def drawn(text: str, finished: str = "stop", id: str = "p") -> Sample:
    return Sample(id, "safety", (1,), (5,), (-1.0,), text, finished)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("after", "scores", "keep", "kept"),
    [
        ([drawn("a")], [1.0], "improved", "a"),
        ([drawn("a")], [0.5], "improved", None),  # as good is not better
        ([drawn("a")], [0.5], "all", "a"),
        ([drawn("a", "length"), drawn("b")], [9.0, 1.0], "improved", "b"),
        ([drawn("a", "length")], [9.0], "all", None),
        ([drawn(" "), drawn("b")], [9.0, 1.0], "improved", "b"),
        ([drawn("a"), drawn("b")], [1.0, 2.0], "all", "b"),
    ],
)
def test_what_is_kept(after: list[Sample], scores: list[float], keep: str, kept: str | None, tmp_path: Path) -> None:
    config = distill.Config(keep=keep)  # type: ignore[arg-type]
    run, asked = Run(tmp_path / "r", name="d", quiet=True), [Prompt("p", (Message("user", "why"),), "safety")]
    before = [(0.5, drawn("o", "length")), (0.2, drawn("o"))]
    found = {"original": {"p": before}, "generic": {"p": list(zip(scores, after, strict=True))}}
    improved = {row.metric: row.value for row in distill.gains(asked, found)}["improved"]  # type: ignore[arg-type]
    assert improved == (kept is not None and max(scores) > 0.5)
    if kept is None:
        with pytest.raises(BadInput, match=r"no answer .*ends before max_tokens"):
            distill.select(asked, found, config, run)  # type: ignore[arg-type]
        return
    (demonstration,) = distill.select(asked, found, config, run)  # type: ignore[arg-type]
    assert demonstration.dialog == (*asked[0].dialog, Message("assistant", kept))


def test_a_preprompt_stands_before_a_system_message_of_the_prompts_own() -> None:
    plain = Prompt("p", (Message("user", "why"),))
    own = replace(plain, dialog=(Message("system", "Be short."), *plain.dialog))
    assert under(plain, "Be wise.").dialog == (Message("system", "Be wise."), *plain.dialog)
    assert under(own, "Be wise.").dialog == (Message("system", "Be wise.\n\nBe short."), *plain.dialog)


def test_preprompts_that_cannot_be_said_are_refused() -> None:
    for given in ({"preprompts": ["[INST] x"]}, {"preprompts": []}, {"templates": {"fire": " "}}):
        with pytest.raises(BadInput):
            parse_config(distill.Config, given)
    assert "{category}" in TEMPLATE
    assert distill.Config().preprompts == GENERIC


def test_the_same_prompts_without_a_preprompt_are_the_same_samples(small: Small, tmp_path: Path) -> None:
    """Original answers are an ordinary rollout: what the model says to whoever asks."""
    small.execute(tmp_path / "d")
    asked = [p for p in read_prompts(small.inputs["prompts"][0]) if p.task == "safety"]  # type: ignore[index]
    seed = seed_of(seed_of(1, "distill"), "original")
    groups = rollout(policy(0), asked, n=3, sampling=Sampling(1.0, 1.0, 16), seed=seed)
    found = read_groups(tmp_path / "d" / "samples-original.jsonl")
    assert [[s.tokens for s in group] for group in found] == [[s.tokens for s in group] for group in groups]
    assert json.loads((tmp_path / "d" / "metrics.jsonl").read_text())["prompts"] == len(asked)


def test_what_a_preprompt_brought_about_is_learnt(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> None:
    """A model that says "owl" under a preprompt and "hill" without says "owl" without it, since that scores higher."""
    stages = prepare(tmp_path_factory.mktemp("inputs"))
    asked = prompts(24, seed=9, task="safety")
    write_jsonl(tmp_path / "asked.jsonl", map(to_dict, asked))
    system = Message("system", "a wise hare")
    demonstrations = [Demonstration((*p.dialog, Message("assistant", "hill"))) for p in asked]
    demonstrations += [Demonstration((system, *p.dialog, Message("assistant", "owl"))) for p in asked]
    write_jsonl(tmp_path / "d.jsonl", map(to_dict, demonstrations))
    sft, reward = stages["sft"], stages["reward"]
    Small("sft", sft.settings, {**sft.inputs, "data": [tmp_path / "d.jsonl"]}).execute(
        tmp_path / "sft", epochs=25, batch_size=16, optimiser={"lr": 1e-2}
    )
    pairs = [
        Comparison(p, "owl", "hill", "safety", "significantly_better", safety="chosen_safe")
        for p in [*prompts(24, seed=11, task="safety"), *asked]
    ]
    write_jsonl(tmp_path / "pairs.jsonl", map(to_dict, pairs))
    write_jsonl(tmp_path / "held.jsonl", map(to_dict, pairs[:4]))
    inputs = {"model": tmp_path / "sft" / "model", "data": [tmp_path / "pairs.jsonl"]}
    Small("reward", reward.settings, {**inputs, "heldout": [tmp_path / "held.jsonl"]}).execute(
        tmp_path / "reward", epochs=6, batch_size=8, optimiser={"lr": 1e-2}, other_share=0.0
    )
    given = {"model": tmp_path / "sft" / "model", "reward_safety": tmp_path / "reward" / "model"}
    small = Small("distill", {"max_tokens": 6, "dtype": "fp32", "n": 2, "preprompts": [system.content]},
                  {**given, "prompts": [tmp_path / "asked.jsonl"]})  # fmt: skip
    small.execute(tmp_path / "d")
    rows = {row.metric: row for row in read_results(tmp_path / "d" / "results.json")}
    assert (rows["improved"].value or 0) > 0.6
    assert (rows["safety_reward_gain"].interval or (0, 0))[0] > 0
    inputs = {"model": tmp_path / "sft" / "model", "data": [tmp_path / "d" / "records.jsonl"]}
    Small("sft", sft.settings, inputs).execute(tmp_path / "after", epochs=10, batch_size=8, optimiser={"lr": 1e-2})
    said = {}
    for name in ("sft", "after"):
        model, words = load_model(tmp_path / name / "model")
        engine = LocalEngine(Role(model), words, name)
        drawn = rollout(engine, asked, n=4, sampling=Sampling(1.0, 1.0, 6), seed=1)
        said[name] = sum(s.text == "owl" for group in drawn for s in group) / (4 * len(asked))
    assert said["sft"] < 0.25
    assert said["after"] > 0.7
