"""Labels held against the village's gold scores, in evaluation alone."""

from __future__ import annotations

from pathlib import Path

from small_models import refused
from small_stages import Small
from tiny import policy_model, tokenizer

from ayni.evaluate.label_agreement import gold_agreement
from ayni.evaluate.results import read_results
from ayni.files import write_jsonl
from ayni.model_directory import save_model
from ayni.records import Comparison, to_dict
from ayni.seeds import rng
from ayni.village import Gold, Village
from ayni.village.answers import worst


def labels(village: Village, count: int, right: int, split: str = "train") -> list[Comparison]:
    """The best answer against the worst; all but the first `right` chose wrongly, and one pair is a tie."""
    found = []
    for i, prompt in enumerate([p for p in village.prompts(split) if p.task == "helpfulness"][:count]):  # type: ignore[arg-type]
        best = village.reference_answer(prompt, rng(i))
        bad = worst(village.knowledge(prompt), rng(i))
        pair = (best, bad) if i < right else (bad, best)
        found.append(Comparison(prompt, *pair, annotator="ai:judge"))
    tie = found[0]
    return [*found, Comparison(tie.prompt, tie.chosen, tie.chosen + " ", annotator="ai:judge")]


def test_who_chooses_what_gold_prefers_agrees(village: Village, gold: Gold) -> None:
    (row,) = gold_agreement(labels(village, 20, 15), "validation", 3)
    assert (row.metric, row.axis, row.judge, row.model) == ("gold_agreement", "helpfulness", "gold", "ai:judge")
    assert (row.n, row.wins, row.ties, row.losses, row.value) == (21, 15, 1, 5, 0.75)
    assert row.interval is not None
    assert row.interval[0] < 0.75 < row.interval[1]


def test_simulated_annotators_are_one(village: Village) -> None:
    mine = labels(village, 4, 4)
    theirs = [Comparison(c.prompt, c.chosen, c.rejected, annotator=f"villager-{i}") for i, c in enumerate(mine)]
    assert [row.model for row in gold_agreement([*mine, *theirs], "validation", 0)] == ["ai:judge", "annotators"]


def test_evaluate_reads_labels_of_the_test_split_only_at_the_end(village: Village, tmp_path: Path) -> None:
    save_model(tmp_path / "model", policy_model(0), tokenizer())
    for split in ("train", "test"):
        write_jsonl(tmp_path / f"{split}.jsonl", map(to_dict, labels(village, 8, 6, split)))
    small = Small("evaluate", {}, {"model": tmp_path / "model", "labels": [tmp_path / "train.jsonl"]})
    small.execute(tmp_path / "o")
    (row,) = read_results(tmp_path / "o" / "results.json")
    assert (row.metric, row.value, row.split) == ("gold_agreement", 0.75, "validation")
    sealed = Small("evaluate", {}, {"model": tmp_path / "model", "labels": [tmp_path / "test.jsonl"]})
    assert "is of the test split, and this is no final evaluation" in refused(lambda: sealed.execute(tmp_path / "t"))
    sealed.execute(tmp_path / "final", final=True)
    assert read_results(tmp_path / "final" / "results.json")[0].split == "test"
