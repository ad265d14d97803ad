"""Reward models of several folds: each pair held out once a seed, taken together, against another start."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from small_stages import Small, comparisons, prepare

from ayni.config import parse_config
from ayni.errors import BadInput
from ayni.evaluate.leads import Lead, accuracy_gain, added, read_leads, together
from ayni.files import write_jsonl
from ayni.records import root_of, to_dict
from ayni.seeds import rng
from ayni.stages import dpo, reward
from ayni.stages.reward import Config, split
from ayni.text.chat import render_prompt
from ayni.train.batch import Pair


def lead(pair: str, model: float, words: float = 1.0, longer: float = 1.0, axis: str = "safety") -> Lead:
    return Lead(pair, f"talk {pair[0]}", axis, model, words, longer)


def test_every_conversation_is_held_out_by_one_fold() -> None:
    pairs = [c for c in comparisons(60) if c.task == "helpfulness"]
    parts = []
    for part in range(1, 6):
        train, heldout = split(pairs, [], Config(fold=f"{part}/5"), rng(1, "reward", "split"))
        assert len(train) + len(heldout) == len(pairs)
        parts.append({root_of(c.prompt.dialog) for c in heldout})
        assert not parts[-1] & {root_of(c.prompt.dialog) for c in train}
    assert set.union(*parts) == {root_of(c.prompt.dialog) for c in pairs}
    assert sum(map(len, parts)) == len(set.union(*parts))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("fold", ["0/5", "6/5", "1/1"])
def test_a_fold_that_is_none_is_refused(fold: str) -> None:
    with pytest.raises(BadInput, match=f"there is no part {fold}; say 1/5"):
        parse_config(reward.Config, {"fold": fold})


def test_dpo_leaves_out_what_a_reward_model_of_the_same_fold_holds_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside one of the other half, which learns from just these, it has no conversation in common."""
    small = prepare(tmp_path)
    pairs = comparisons(40)
    assert {c.task for c in pairs} == {"helpfulness", "safety"}
    write_jsonl(tmp_path / "pairs.jsonl", map(to_dict, pairs))
    inputs = {"model": small["dpo"].inputs["model"], "data": [tmp_path / "pairs.jsonl"]}
    seen: list[Pair] = []
    monkeypatch.setattr(dpo.Config, "fit", lambda self, model, items, objective, run: seen.extend(items))
    Small("dpo", {**small["dpo"].settings, "fold": "1/2"}, inputs).execute(tmp_path / "dpo")
    train, heldout = split(pairs, [], Config(fold="1/2"), rng(1, "reward", "split"))
    assert 0 < len(seen) <= len(train) < len(pairs)  # of pairs that both tasks judge it takes one
    assert heldout
    prompts = {tuple(pair.chosen.tokens[: pair.chosen.mask.index(True)]) for pair in seen}
    assert not prompts & {tuple(render_prompt(c.prompt.dialog, tiny.tokenizer())) for c in heldout}


def test_a_fold_is_two_numbers() -> None:
    with pytest.raises(BadInput, match="fold"):
        parse_config(reward.Config, {"fold": "x1/5y"})


def test_a_fold_and_a_held_out_input_exclude_each_other(tmp_path: Path) -> None:
    small = prepare(tmp_path)["reward"]
    inputs = {**small.inputs, "heldout": small.inputs["data"]}
    with pytest.raises(BadInput, match="fold: a part of data cannot be held out beside heldout; give one of them"):
        Small("reward", {**small.settings, "fold": "1/2"}, inputs).execute(tmp_path / "rm")


def test_each_model_counts_in_units_of_its_own() -> None:
    """Root mean squares: 5 and 0.5; 1 of the words."""
    found = together([[lead("a1", 1.0), lead("b1", -7.0)], [lead("a1", 0.5), lead("c1", 0.5, words=-1.0)]])
    assert [each.pair for each in found] == ["a1", "b1", "c1"]
    assert [each.model for each in found] == pytest.approx([1 / 5 + 1, -7 / 5, 1])
    assert [each.words for each in found] == pytest.approx([2, 1, -1])
    turned = together([[lead("a1", -1.0), lead("b1", -7.0)]])  # which answer was chosen does not enter the unit
    assert turned[1].model == found[1].model
    assert together([[lead("a1", 0.0, words=0.0)]])[0].model == 0


def test_what_is_added_to_the_words_is_what_both_know_less_what_they_know() -> None:
    """The model rights one pair, wrongs none: 2 of 4 pairs with it, 1 of 4 without."""
    leads = [lead("a", 3, -1), lead("b", 1, 2), lead("c", 1, -2), lead("d", -3, -1)]
    row = added(leads, model="rm")
    assert (row.metric, row.against, row.value, row.n) == ("accuracy_added", "bag of words", 0.25, 4)
    assert accuracy_gain([1, 1, -1, -1], [-1, -1, 1, -1], leads).value == 0.25


@pytest.fixture(scope="module")
def folds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """leads.jsonl of two folds with two seeds each, and of one fold more of other comparisons."""
    at = tmp_path_factory.mktemp("folds")
    small = prepare(at)["reward"]
    found: dict[str, list[Path]] = {}
    for name, seed in (("ours", 8), ("theirs", 9)):
        write_jsonl(at / f"{name}.jsonl", map(to_dict, comparisons(40, seed=seed)))
        inputs = {"model": small.inputs["model"], "data": [at / f"{name}.jsonl"]}
        members = [Small("reward", {**small.settings, "fold": f"{k}/2", "epochs": 1}, inputs) for k in (1, 2)]
        for member in members:
            directory = at / f"{name}-{member.settings['fold'][0]}"
            member.execute(directory)
            found.setdefault(name, []).append(directory / "leads.jsonl")
    return found


def crossed(directory: Path, **inputs: Any) -> dict[str, Any]:
    Small("crossvalidate", {}, inputs).execute(directory)
    return {row["metric"]: row for row in json.loads((directory / "results.json").read_text())["results"]}


def test_the_pairs_of_all_folds_are_measured_once(folds: dict[str, list[Path]], tmp_path: Path) -> None:
    once = crossed(tmp_path / "once", leads=folds["ours"])
    apart = [each for path in folds["ours"] for each in read_leads(path)]
    assert once["accuracy"]["n"] == len({each.pair for each in apart}) == len(apart) >= 10
    assert once["accuracy"]["value"] == pytest.approx(np.mean([each.model > 0 for each in apart]))
    assert once["baseline_accuracy"]["n"] == once["accuracy_added"]["n"] == len(apart)
    assert once["accuracy"]["clusters"] == len({each.conversation for each in apart})
    twice = crossed(tmp_path / "twice", leads=folds["ours"] * 2, against=tmp_path / "once" / "leads.jsonl")
    assert twice["accuracy"]["n"] == len(apart)
    assert (twice["accuracy_gain"]["value"], twice["accuracy_gain"]["against"]) == (0, "once")


def test_other_comparisons_or_another_task_cannot_be_crossed(folds: dict[str, list[Path]], tmp_path: Path) -> None:
    crossed(tmp_path / "theirs", leads=folds["theirs"])
    with pytest.raises(BadInput, match="none of these pairs was held out there; cross the same comparisons"):
        crossed(tmp_path / "a", leads=folds["ours"], against=tmp_path / "theirs" / "leads.jsonl")
    (first, *rest) = read_leads(folds["ours"][0])
    write_jsonl(tmp_path / "mixed.jsonl", map(to_dict, [replace(first, axis="helpfulness"), *rest]))
    with pytest.raises(BadInput, match="comparisons of helpfulness and safety in one"):
        crossed(tmp_path / "b", leads=[tmp_path / "mixed.jsonl"])
    (tmp_path / "none.jsonl").write_text("")
    with pytest.raises(BadInput, match="no pair was held out; hold some out"):
        crossed(tmp_path / "c", leads=[tmp_path / "none.jsonl"])
    (tmp_path / "wrong.jsonl").write_text('{"pair": 3}\n')
    with pytest.raises(BadInput, match=r"wrong.jsonl:1: pair: "):
        crossed(tmp_path / "d", leads=[tmp_path / "wrong.jsonl"])
