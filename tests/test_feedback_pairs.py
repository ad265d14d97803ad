"""Ratings, thumbs and edits become comparisons: who wins, by how much, how many pairs, and what is refused."""

from __future__ import annotations

import json
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from tiny import tokenizer

from ayni.errors import BadInput
from ayni.files import write_jsonl
from ayni.formats.inspect import inspect_data
from ayni.formats.pairing import Pairing, liked, pairs_of_judgements, rating_of_lead
from ayni.formats.reading import detect, read_comparisons, read_demonstrations, read_prompts, scan
from ayni.records import Judgement, Message, Prompt, to_dict


def prompt(text: str = "Who sings?", task: Any = "helpfulness") -> Prompt:
    return Prompt(f"p-{text}", (Message("user", text),), task, source="unit")


def scored(*scores: float, of: Prompt | None = None) -> list[Judgement]:
    return [Judgement(of or prompt(), f"answer {n}", float(score)) for n, score in enumerate(scores)]


def thumbs(*labels: str) -> list[Judgement]:
    return [Judgement(prompt(), f"answer {n}", label=label) for n, label in enumerate(labels)]


def test_the_higher_score_is_chosen_with_the_degree_of_the_lead() -> None:
    found = pairs_of_judgements(scored(5, 4, 3, 1))
    assert [(c.chosen[-1], c.rejected[-1], c.rating) for c in found.comparisons] == [
        ("0", "1", "slightly_better"),
        ("0", "2", "better"),
        ("0", "3", "significantly_better"),
        ("1", "2", "slightly_better"),
        ("1", "3", "significantly_better"),
        ("2", "3", "better"),
    ]
    assert found.origins == [0, 0, 0, 1, 1, 2]
    assert found.skipped == {}
    assert {(c.prompt, c.task, c.source) for c in found.comparisons} == {(prompt(), "helpfulness", "unit")}


@pytest.mark.parametrize(
    ("lead", "rating"),
    [
        (1.0, "significantly_better"),
        (0.75, "significantly_better"),
        (0.1 + 0.2 + 0.45, "significantly_better"),  # 0.75 but for rounding
        (0.74, "better"),
        (0.5, "better"),
        (0.25, "slightly_better"),
        (0.24, "negligibly_better_or_unsure"),
    ],
)
def test_degrees(lead: float, rating: str) -> None:
    assert rating_of_lead(lead, Pairing()) == rating


def test_equal_scores_give_no_pair_and_are_counted() -> None:
    found = pairs_of_judgements([*scored(3, 3), *scored(1, 2, of=prompt("And now?"))])
    assert [(c.prompt.id, c.chosen) for c in found.comparisons] == [("p-And now?", "answer 1")]
    assert found.skipped == {"no other answer to the same prompt is worth more or less": 2}


def test_two_values_say_nothing_of_the_degree() -> None:
    assert [c.rating for c in pairs_of_judgements(scored(0, 1, 0)).comparisons] == [None, None]


def test_thumbs_are_compared_with_thumbs_only() -> None:
    found = pairs_of_judgements([*thumbs("👍", "thumbs-down", "Good"), *scored(1, 5, 3)])
    assert [(c.chosen, c.rejected, c.rating) for c in found.comparisons[:2]] == [
        ("answer 0", "answer 1", None),
        ("answer 2", "answer 1", None),
    ]
    assert len(found.comparisons) == 5


def test_several_judgements_of_one_answer_count_with_their_mean() -> None:
    judged = [*scored(1, 4), Judgement(prompt(), " answer 0 ", 5.0), Judgement(prompt(), "answer 0", 3.0)]
    (pair,) = pairs_of_judgements(judged).comparisons  # (1 + 5 + 3) / 3 against 4
    assert (pair.chosen, pair.rejected) == ("answer 1", "answer 0")
    judged.append(Judgement(prompt(), "answer 0", 9.0))
    (pair,) = pairs_of_judgements(judged).comparisons
    assert (pair.chosen, pair.rejected) == ("answer 0", "answer 1")


def test_tasks_and_prompts_are_kept_apart() -> None:
    judged = [*scored(1, of=prompt("a")), *scored(5, of=prompt("b")), *scored(3, of=prompt("a", "safety"))]
    assert pairs_of_judgements(judged).comparisons == []


def test_no_prompt_gives_more_pairs_than_the_cap_and_the_seed_draws_them() -> None:
    judged = [*scored(*range(12)), *scored(1, 2, of=prompt("small"))]
    pairs = pairs_of_judgements(judged, Pairing(per_prompt=6))
    assert Counter(c.prompt.id for c in pairs.comparisons) == {"p-Who sings?": 6, "p-small": 1}
    assert pairs.skipped == {"more than 6 pairs of one prompt": 66 - 6}
    again = pairs_of_judgements(judged, Pairing(per_prompt=6))
    assert again == pairs
    drawn = {
        tuple((c.chosen, c.rejected) for c in pairs_of_judgements(judged, Pairing(6, s)).comparisons) for s in range(8)
    }
    assert len(drawn) > 4
    everything = {(f"answer {b}", f"answer {a}") for a, b in combinations(range(12), 2)}
    assert all(pair in everything for some in drawn for pair in some[:6])


def test_an_unknown_label_is_an_error() -> None:
    with pytest.raises(ValueError, match="'meh' is neither"):
        pairs_of_judgements(thumbs("meh"))
    assert [liked(label) for label in ("Thumbs Up", "thumbs_down", "👎", "meh", "")] == [True, False, False, None, None]


# Files


def rated(path: Path, *rows: dict[str, Any]) -> Path:
    write_jsonl(path, [{"prompt": "Who sings?", **row} for row in rows])
    return path


@pytest.mark.parametrize("key", ["score", "rating"])
def test_files_of_ratings(tmp_path: Path, key: str) -> None:
    path = rated(
        tmp_path / "r.jsonl", *({"response": f"a{n}", key: n} for n in (1, 5, 3)), {"response": "b", key: None}
    )
    assert detect(path).name == "ratings"
    found = read_comparisons(path)
    assert [(c.chosen, c.rejected, c.rating) for c in found] == [
        ("a5", "a1", "significantly_better"),
        ("a3", "a1", "better"),
        ("a5", "a3", "better"),
    ]
    reading = scan(path, "comparisons")
    assert [line for _, line in reading.lines] == [2, 3, 2]
    assert reading.skipped == {"not rated": 1}
    assert len(read_prompts(path)) == 1
    shown = inspect_data(path)
    assert (shown["format"], shown["records"], shown["turns"]) == ("ratings", 3, 3)
    counted = inspect_data(path, tokenizer(), 64)
    assert counted["tokens"]["supervised"] > 0
    assert (counted["unsupervised"], counted["truncated"], counted["without_eos"]) == (0, 0, 0)


def test_thumbs_as_words_truth_values_and_in_tables(tmp_path: Path) -> None:
    words = rated(tmp_path / "w.jsonl", {"response": "a", "label": "up"}, {"response": "b", "thumbs": "down"})
    truth = rated(tmp_path / "t.jsonl", {"completion": "b", "label": False}, {"completion": "a", "label": True})
    table = tmp_path / "c.csv"
    table.write_text("prompt,response,score\nWho sings?,a,4.5\nWho sings?,b,-1\nWho sings?,c,\n", encoding="utf-8")
    for path in (words, truth, table):
        assert detect(path).name == "ratings"
        (pair,) = read_comparisons(path)
        assert (pair.chosen, pair.rejected, pair.rating) == ("a", "b", None)


def test_disliked_completions_are_no_demonstrations(tmp_path: Path) -> None:
    path = rated(tmp_path / "t.jsonl", {"completion": "b", "label": False})
    with pytest.raises(BadInput, match="expected demonstrations, found judgements"):
        read_demonstrations(path)


def test_our_own_judgements(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    write_jsonl(path, map(to_dict, [*scored(1, 2), *thumbs("up", "down")]))
    assert detect(path).name == "judgement"
    assert scan(path).records == [*scored(1, 2), *thumbs("up", "down")]
    assert [(c.chosen, c.rejected) for c in read_comparisons(path)] == [
        ("answer 1", "answer 0"),
        ("answer 0", "answer 1"),
    ]


def test_edits_are_comparisons_and_demonstrations(tmp_path: Path) -> None:
    path = rated(
        tmp_path / "e.jsonl",
        {"original": "A stone.", "edited": "The river.", "task": "safety", "annotator": "Jasper"},
        {"response": "Fine.", "edited": "Fine. "},
    )
    assert detect(path).name == "edits"
    (pair,) = read_comparisons(path)
    assert (pair.chosen, pair.rejected, pair.task, pair.annotator) == ("The river.", "A stone.", "safety", "Jasper")
    assert scan(path).skipped == {"the edit changed nothing": 1}
    demonstrations = read_demonstrations(path)
    assert [d.dialog[-1].content for d in demonstrations] == ["The river.", "Fine. "]
    assert {d.train for d in demonstrations} == {"last"}


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown word": ({"response": "a", "label": "meh"}, "r.jsonl:1: label: 'meh' is neither a number nor a thumb"),
    "a list": ({"response": "a", "score": [1]}, "r.jsonl:1: score: "),
    "a number as text": ({"response": "a", "score": "4"}, "r.jsonl:1: score: '4' is neither"),
    "an empty answer": ({"response": " ", "score": 1}, "r.jsonl:1: response: the text is empty"),
    "a tag": ({"response": "[INST]", "score": 1}, "r.jsonl:1: response: a message must not contain"),
    "an endless number": ({"response": "a", "score": 1e999}, "r.jsonl:1: "),
    "an empty edit": ({"original": "a", "edited": ""}, "r.jsonl:1: edited: the text is empty"),
    "both": ({"prompt": {"id": "p", "dialog": [{"role": "user", "content": "a"}]}, "response": "a", "score": 1.0,
              "label": "up"}, "r.jsonl:1: score: give a score or a label"),
    "neither": ({"prompt": {"id": "p", "dialog": [{"role": "user", "content": "a"}]}, "response": "a"}, "give a score"),
    "an unknown label of ours": (
        {"prompt": {"id": "p", "dialog": [{"role": "user", "content": "a"}]}, "response": "a", "label": "meh"},
        "r.jsonl:1: label: 'meh' is neither",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_files(tmp_path: Path, case: str) -> None:
    row, says = BAD[case]
    (tmp_path / "r.jsonl").write_text(json.dumps({"prompt": "Who?", **row}) + "\n", encoding="utf-8")
    with pytest.raises(BadInput, match=says) as caught:
        read_comparisons(tmp_path / "r.jsonl")
    assert "\n" not in str(caught.value)


def test_ratings_without_a_single_pair_say_why(tmp_path: Path) -> None:
    path = rated(tmp_path / "r.jsonl", {"response": "a", "score": 1}, {"response": "b", "score": 1})
    with pytest.raises(BadInput, match=r"holds no comparisons \(left out: 2 × no other answer"):
        read_comparisons(path)


def test_real_votes_as_ratings_give_the_same_winners(data_dir: Path, tmp_path: Path) -> None:
    """PandaLM's answers, each with the number of its votes, give the comparisons that its own format gives."""
    source = data_dir / "preferences" / "pandalm.json"
    rows = []
    for index, row in enumerate(json.loads(source.read_text(encoding="utf-8"))):
        votes = [row[f"annotator{n}"] for n in (1, 2, 3)]
        for n in (1, 2):
            answer = row[f"response{n}"]
            if isinstance(answer, str) and answer.strip() and row["instruction"].strip():
                rows.append({"prompt": f"question {index}", "response": answer, "score": votes.count(n)})
    write_jsonl(tmp_path / "votes.jsonl", rows)
    ours = [(c.chosen.strip(), c.rejected.strip()) for c in read_comparisons(source)]
    found = [(c.chosen.strip(), c.rejected.strip()) for c in read_comparisons(tmp_path / "votes.jsonl")]
    assert len(found) > 400
    assert found == ours


def test_thousands_of_answers_to_one_prompt_take_no_time() -> None:
    judged = scored(*range(20_000))
    pairs = pairs_of_judgements(judged)
    assert len(pairs.comparisons) == len(set(pairs.origins)) == 6
    assert pairs.skipped.total() == 20_000 * 19_999 // 2 - 6
    lopsided = pairs_of_judgements(scored(1, *[0] * 5000))
    assert {c.chosen for c in lopsided.comparisons} == {"answer 0"}
    assert len({c.rejected for c in lopsided.comparisons}) == 6
