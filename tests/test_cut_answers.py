"""One rule for answers cut off at the token limit, from sample to loss: they stay cut, and EOS is never taught."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_stages import Small, prepare
from tiny import prompts, reward_model, tokenizer

from ayni.cli.score import score
from ayni.feedback.entries import Entry, Item, Judged
from ayni.feedback.pairs import storable
from ayni.feedback.records_of import comparisons
from ayni.files import write_json, write_jsonl
from ayni.formats.export import csv_text
from ayni.formats.inspect import sequences_of
from ayni.formats.pairing import pairs_of_judgements
from ayni.formats.reading import read_comparisons, read_demonstrations
from ayni.maths.rewards import penalise_cut
from ayni.model.role import Role
from ayni.quality.answer_pairs import pairs_from_comparisons, pairs_from_samples
from ayni.records import Comparison, Demonstration, Judgement, Message, Prompt, Sample, from_dict, to_dict
from ayni.reward.combine import Scores, best_of
from ayni.reward.model import RewardModel
from ayni.reward.verdicts import Verdict, comparison_of
from ayni.rollout.engine import sampled_sequence
from ayni.rollout.store import read_groups
from ayni.run import Run
from ayni.stages import dpo, kto, label, reward, rrhf, sft
from ayni.text.chat import answer_text, answer_tokens, render_prompt

WORDS = "the river sings at night and the owl listens"
EOS = tokenizer().eos


def sample_of(prompt: Prompt, text: str = WORDS, *, cut: int | None = None, model: str = "policy") -> Sample:
    """An answer as a model samples it: its first `cut` tokens, or all of them and EOS."""
    head = render_prompt(prompt.dialog, tokenizer())
    tokens = answer_tokens(prompt.dialog, text, tokenizer()).tokens[len(head) :][:cut]
    said = answer_text(tokens, tokenizer())
    finished = "stop" if cut is None else "length"
    logprobs = (-1.0,) * len(tokens)
    return Sample(prompt.id, "helpfulness", tuple(head), tuple(tokens), logprobs, said, finished, model)


def pair_of(prompt: Prompt, chosen: Sample, rejected: Sample) -> Comparison:
    said = (chosen.text, rejected.text)
    return Comparison(prompt, *said, finished_chosen=chosen.finished, finished_rejected=rejected.finished)


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Small]:
    return prepare(tmp_path_factory.mktemp("inputs"))


def given(small: Small, **inputs: Any) -> Small:
    kept = {name: path for name, path in {**small.inputs, **inputs}.items() if path is not None}
    return Small(small.kind, small.settings, kept)


# From text to tokens


def test_a_reward_model_learns_from_cut_answers_as_it_scores_them() -> None:
    """The same tokens, so the same column: neither EOS nor the space before it, which it never sees when scoring."""
    (prompt,) = prompts(1)
    ends = range(2, len(sample_of(prompt).tokens) - 1)  # between words, within them, after a lone space
    judge = RewardModel(Role(reward_model(1)), tokenizer())
    for end in ends:
        cut, whole = sample_of(prompt, cut=end), sample_of(prompt, "no idea")
        pair = reward.pair_of(pair_of(prompt, cut, whole), tokenizer(), reward.Config())
        assert pair.chosen.tokens == sampled_sequence(cut).tokens
        assert pair.chosen.mask == sampled_sequence(cut).mask
        assert pair.rejected.tokens == sampled_sequence(whole).tokens
        assert (pair.chosen.tokens[-1] == EOS, pair.rejected.tokens[-1] == EOS) == (False, True)
        scored = judge.score_samples([prompt], [[cut, whole]], tokenizer())
        held_out = reward.scores_of(judge, [pair_of(prompt, cut, whole)])
        assert [float(x) for (x,) in held_out] == pytest.approx(scored.tolist(), abs=1e-5)


def test_a_dialogue_that_went_on_after_a_cut_answer_is_context_as_ever() -> None:
    turns = (Message("user", "owl"), Message("assistant", "the river"), Message("user", "and"))
    cut = answer_tokens(turns, "the hill", tokenizer(), "length")
    assert cut.tokens[: len(render_prompt(turns, tokenizer()))] == render_prompt(turns, tokenizer())
    assert not any(t == EOS and supervised for t, supervised in zip(cut.tokens, cut.mask, strict=True))


def test_without_a_word_on_how_it_ended_an_answer_has_ended() -> None:
    """Files from before the field read as they did."""
    old = {"prompt": to_dict(prompts(1)[0]), "chosen": "a", "rejected": "b"}
    record = from_dict(Comparison, json.loads(json.dumps(old)))
    assert (record.finished_chosen, record.finished_rejected) == (None, None)
    assert {s.tokens[-1] for s in sequences_of(record, tokenizer())} == {EOS}
    assert "finished_chosen" not in to_dict(record)


# Records keep it


def test_judged_items_become_comparisons_that_say_what_was_cut() -> None:
    (prompt,) = prompts(1)
    item = Item("i", prompt, "a", "b", sampling_a={"finished": "length"}, sampling_b={"finished": "stop"})
    found = [
        comparisons([Judged(1, Entry("s", "i", "ann", preferred=side), item, "Ann")])[0]  # type: ignore[arg-type]
        for side in ("a", "b")
    ]
    assert [(c.finished_chosen, c.finished_rejected) for c in found] == [("length", "stop"), ("stop", "length")]


@pytest.mark.parametrize("store", [None, "votes.db"])
def test_collected_comparisons_say_which_answers_were_cut(
    store: str | None, stages: dict[str, Small], tmp_path: Path
) -> None:
    stages["collect"].execute(tmp_path / "c", store=store, max_tokens=6, pairs_per_prompt=3)
    drawn = [s for n in (0, 1) for group in read_groups(tmp_path / "c" / f"samples-{n}.jsonl") for s in group]
    ended = {(s.prompt_id, storable(s.text)): s.finished for s in drawn}
    assert set(ended.values()) == {"stop", "length"}
    found = read_comparisons(tmp_path / "c" / "records.jsonl") + read_comparisons(tmp_path / "c" / "heldout.jsonl")
    assert {c.finished_chosen for c in found} | {c.finished_rejected for c in found} == {"stop", "length"}
    for c in found:
        assert c.finished_chosen == ended[c.prompt.id, c.chosen]
        assert c.finished_rejected == ended[c.prompt.id, c.rejected]


def test_an_ai_judge_keeps_what_was_cut(tmp_path: Path) -> None:
    (prompt,) = prompts(1)
    cut, whole = sample_of(prompt, cut=4, model="new"), sample_of(prompt, "no idea", model="old")
    (pair,) = pairs_from_samples([{prompt.id: [cut]}, {prompt.id: [whole]}], {prompt.id: prompt})
    (again,) = pairs_from_comparisons([pair_of(prompt, cut, whole)])
    for each in (pair, again):
        assert (each.finished_first, each.finished_second) == ("length", "stop")
        for p, ends in ((0.9, ("length", "stop")), (0.1, ("stop", "length"))):
            record = label.labelled_comparison(each, Verdict((p,), (p,)), None, "j", label.Config())
            assert record is not None
            assert (record.finished_chosen, record.finished_rejected) == ends
    plain = comparison_of(prompt, "x", "y", Verdict((0.9,), (0.9,)), judge="j")
    assert plain is not None
    assert plain.finished_chosen is None


def test_judgements_of_cut_answers_become_pairs_that_say_so() -> None:
    (prompt,) = prompts(1)
    judged = [Judgement(prompt, "bad", 1.0, finished="length"), Judgement(prompt, "good", 5.0, finished="stop")]
    (pair,) = pairs_of_judgements(judged).comparisons
    assert (pair.finished_chosen, pair.finished_rejected) == ("stop", "length")


def test_files_carry_it_in_and_out(tmp_path: Path) -> None:
    (prompt,) = prompts(1)
    record = Comparison(prompt, "a", "b", finished_chosen="stop", finished_rejected="length")
    write_jsonl(tmp_path / "own.jsonl", [to_dict(record)])
    assert read_comparisons(tmp_path / "own.jsonl") == [record]
    (row,) = csv.DictReader(io.StringIO(csv_text([record]).removeprefix("\ufeff")))
    assert (row["finished_chosen"], row["finished_rejected"]) == ("stop", "length")
    write_jsonl(
        tmp_path / "rows.jsonl", [{"prompt": "hi", "chosen": "a", "rejected": "b", "finished_chosen": "length"}]
    )
    assert [c.finished_chosen for c in read_comparisons(tmp_path / "rows.jsonl")] == ["length"]
    choice = {"type": "pairwise", "value": {"selected": "right"}, "to_name": ["answer1", "answer2"]}
    task = {"prompt": "hi", "answer1": "a", "answer2": "b", "finished1": "stop", "finished2": "length"}
    for finished, expected in (("length", "length"), ("yes", None)):  # a stranger's field is not ours
        data = {**task, "finished2": finished}
        write_json(tmp_path / "studio.json", [{"id": 1, "data": data, "annotations": [{"result": [choice]}]}])
        assert [c.finished_chosen for c in read_comparisons(tmp_path / "studio.json")] == [expected]


def test_kept_cut_answers_stay_cut_as_demonstrations(stages: dict[str, Small], tmp_path: Path) -> None:
    stages["reject"].execute(tmp_path / "rs", finished_only=False, max_tokens=3)
    kept = read_demonstrations(tmp_path / "rs" / "records.jsonl")
    ends = {(g[0].prompt_id, s.text): s.finished for g in read_groups(tmp_path / "rs" / "samples.jsonl") for s in g}
    assert "length" in {d.finished for d in kept}
    for d in kept:
        assert d.finished == ends[d.source.partition(":")[2], d.dialog[-1].content]
        (sequence,) = sequences_of(d, tokenizer())
        assert (sequence.tokens[-1] == EOS) == (d.finished == "stop")


# Losses never see EOS after a cut answer


def fitted(module: Any, stage: Small, directory: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> list[Any]:
    """What the stage would have trained on."""
    seen: list[Any] = []
    monkeypatch.setattr(module.Config, "fit", lambda self, model, items, *rest, **more: seen.extend(items))
    stage.execute(directory, **settings)
    return seen


def test_no_stage_supervises_eos_after_a_cut_answer(
    stages: dict[str, Small], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = prompts(4)
    cut = [sample_of(p, cut=5) for p in asked]
    pairs = [
        replace(pair_of(p, c, sample_of(p, "no idea")), task="helpfulness") for p, c in zip(asked, cut, strict=True)
    ]
    write_jsonl(tmp_path / "pairs.jsonl", map(to_dict, pairs))
    shown = [
        Demonstration((*p.dialog, Message("assistant", c.text)), "last", "", "length")
        for p, c in zip(asked, cut, strict=True)
    ]
    write_jsonl(tmp_path / "shown.jsonl", map(to_dict, shown))
    tokens = {tuple(sampled_sequence(c).tokens) for c in cut}

    sequences = fitted(sft, given(stages["sft"], data=[tmp_path / "shown.jsonl"]), tmp_path / "sft", monkeypatch)
    assert {tuple(s.tokens) for s in sequences} == tokens
    compared = fitted(dpo, given(stages["dpo"], data=[tmp_path / "pairs.jsonl"]), tmp_path / "dpo", monkeypatch)
    assert {tuple(p.chosen.tokens) for p in compared} == tokens
    thumbs = fitted(kto, given(stages["kto"], data=[tmp_path / "pairs.jsonl"]), tmp_path / "kto", monkeypatch)
    assert {tuple(t.sequence.tokens) for t in thumbs if t.desirable} == tokens
    for t in thumbs:
        supervised = [token for token, m in zip(t.mismatched.tokens, t.mismatched.mask, strict=True) if m]
        # an answer of its own end, whosever prompt it stands after
        assert (supervised[-1] == EOS) == (answer_text(supervised, tokenizer()) == "no idea")


def test_scores_of_a_file_are_of_the_answers_as_they_ended(stages: dict[str, Small], tmp_path: Path) -> None:
    (prompt,) = prompts(1)
    cut, whole = sample_of(prompt, cut=5), sample_of(prompt, "no idea")
    write_jsonl(tmp_path / "pairs.jsonl", [to_dict(pair_of(prompt, cut, whole))])
    where = stages["reject"].inputs["reward"]
    score(where, tmp_path / "pairs.jsonl", tmp_path / "scores.jsonl", False)  # type: ignore[arg-type]
    (row,) = [json.loads(line) for line in (tmp_path / "scores.jsonl").read_text().splitlines()]
    judge = reward.load_reward(where)  # type: ignore[arg-type]
    expected = judge.score_samples([prompt], [[cut, whole]], tokenizer()).tolist()
    assert [row["chosen"], row["rejected"]] == pytest.approx(expected, abs=1e-5)


# They never win


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("shift", [-50.0, 0.0, 50.0])
def test_a_cut_answer_is_worth_less_than_any_finished_one_on_any_scale(scale: float, shift: float) -> None:
    rewards = torch.tensor([2.0, -1.0, 9.0, 0.5]) * scale + shift
    cut = torch.tensor([False, False, True, False])
    found = penalise_cut(rewards, cut)
    assert torch.equal(found[~cut], rewards[~cut])
    deviation = torch.tensor([2.0, -1.0, 0.5]).std(unbiased=False) * scale
    torch.testing.assert_close(found[2], rewards.min() - deviation, rtol=1e-3, atol=1e-5 * scale)


def test_a_penalty_needs_neither_a_spread_nor_a_finished_answer() -> None:
    only = penalise_cut(torch.tensor([3.0, 5.0]), torch.tensor([False, True]))
    assert only.tolist() == [3.0, 2.0]
    none = penalise_cut(torch.tensor([3.0, 5.0]), torch.tensor([True, True]))
    assert none[0] == none[1] < 3


def test_the_best_of_several_has_ended_if_any_has() -> None:
    (prompt,) = prompts(1)
    cut, whole = sample_of(prompt, cut=5), sample_of(prompt, "no idea")
    assert best_of([9.0, 1.0, 2.0], [cut, whole, whole]) == 2
    assert best_of([1.0, 9.0], [cut, cut]) == 1


def test_rrhf_ranks_cut_candidates_last(
    stages: dict[str, Small], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = fitted(rrhf, stages["rrhf"], tmp_path / "rrhf", monkeypatch, max_tokens=6, n=6)
    mixed = 0
    for group in groups:
        ended = [s.tokens[-1] == EOS and sum(s.mask) > 1 for s in group.sequences]  # silence is no answer either
        assert any(ended), "nobody imitates an answer that was cut off"
        best = [r for r, whole in zip(group.rewards, ended, strict=True) if whole]
        worst = [r for r, whole in zip(group.rewards, ended, strict=True) if not whole]
        mixed += bool(best and worst)
        assert not best or not worst or max(worst) < min(best)
    assert mixed


def test_what_cannot_be_imitated_ranks_last_and_is_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither a cut answer nor silence, whatever a reward model makes of them."""
    asked = prompts(3)
    pools = [
        [sample_of(asked[0]), sample_of(asked[0], "")],
        [sample_of(asked[1], ""), sample_of(asked[1], cut=5)],
        [sample_of(asked[2], cut=5), sample_of(asked[2])],
    ]
    liked = torch.tensor([1.0, 5.0, 5.0, 4.0, 3.0, 2.0])
    groups = rrhf.ranked(
        asked, pools, lambda *_: Scores(liked, None, liked), rrhf.Config(), Run(tmp_path / "r", name="rrhf")
    )
    assert "1 of 3 prompts have no candidate to imitate; left out" in capsys.readouterr().err
    assert [int(np.argmax(group.rewards)) for group in groups] == [0, 1]
