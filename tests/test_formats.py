"""Formats: every kind of row becomes the right record; the real files load with the counts they have."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from ayni.errors import BadInput
from ayni.files import write_jsonl
from ayni.formats.markdown import markdown_documents
from ayni.formats.reading import (
    detect,
    read_comparisons,
    read_demonstrations,
    read_prompts,
    read_prompts_of,
    read_texts,
    scan,
)
from ayni.formats.rows import files_of
from ayni.records import Comparison, Demonstration, Dialog, Message, Prompt, to_dict


def dialog(*messages: tuple[str, str]) -> Dialog:
    return tuple(Message(role, content) for role, content in messages)


def turns(*messages: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in messages]


HI_HO = dialog(("user", "hi"), ("assistant", "ho"))
DEMONSTRATIONS: list[tuple[str, dict[str, Any], Dialog]] = [
    ("demonstration", {"dialog": turns(("user", "hi"), ("assistant", "ho"))}, HI_HO),
    ("messages", {"messages": turns(("user", "hi"), ("assistant", "ho"))}, HI_HO),
    ("prompt_completion", {"prompt": "hi", "completion": "ho"}, HI_HO),
    (
        "prompt_completion",
        {"prompt": turns(("system", "s"), ("user", "hi")), "completion": turns(("assistant", "ho"))},
        dialog(("system", "s"), *(("user", "hi"), ("assistant", "ho"))),
    ),
    ("alpaca", {"instruction": "hi", "input": "", "output": "ho"}, HI_HO),
    ("alpaca", {"instruction": "a", "input": "b", "response": "c"}, dialog(("user", "a\n\nb"), ("assistant", "c"))),
    (
        "alpaca",
        {"instruction": "hi", "output": "ho", "system": "s", "history": [["a", "b"]]},
        dialog(("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "hi"), ("assistant", "ho")),
    ),
    ("self_instruct", {"instruction": "hi", "instances": [{"input": "", "output": "ho"}]}, HI_HO),
    (
        "sharegpt",
        {"id": "x", "conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "ho"}]},
        HI_HO,
    ),
]


@pytest.mark.parametrize(("name", "row", "expected"), DEMONSTRATIONS)
@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".jsonl.gz", ".json.gz"])
def test_demonstrations(tmp_path: Path, name: str, row: dict[str, Any], expected: Dialog, suffix: str) -> None:
    path = tmp_path / f"data{suffix}"
    text = json.dumps([row]) if ".jsonl" not in suffix else json.dumps(row) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if suffix.endswith(".gz") else text.encode())
    assert detect(path).name == name
    (record,) = read_demonstrations(path)
    assert record.dialog == expected
    (prompt,) = read_prompts(path)
    assert (prompt.id, prompt.dialog) == ("data-0", expected[:-1])


COMPARISONS: list[tuple[str, dict[str, Any]]] = [
    ("comparison", {"prompt": {"id": "p", "dialog": turns(("user", "hi"))}, "chosen": "ho", "rejected": "no"}),
    ("pairs", {"prompt": "hi", "chosen": "ho", "rejected": "no", "score_chosen": 9}),
    (
        "pairs",
        {"prompt": turns(("user", "hi")), "chosen": turns(("assistant", "ho")), "rejected": turns(("assistant", "no"))},
    ),
    (
        "pairs",
        {
            "chosen": turns(("user", "hi"), ("assistant", "ho")),
            "rejected": turns(("user", "hi"), ("assistant", "no")),
        },
    ),
    (
        "sharegpt_pairs",
        {
            "conversations": [{"from": "human", "value": "hi"}],
            "chosen": {"from": "gpt", "value": "ho"},
            "rejected": {"from": "gpt", "value": "no"},
        },
    ),
    ("hh_rlhf", {"chosen": "\n\nHuman: hi\n\nAssistant: ho", "rejected": "\n\nHuman: hi\n\nAssistant: no"}),
    (
        "pandalm",
        {"instruction": "hi", "input": "", "response1": "no", "response2": "ho"}
        | {f"annotator{n}": 2 for n in (1, 2, 3)},
    ),
    (
        "oasst",
        {
            "message_tree_id": "t",
            "prompt": {
                "text": "hi",
                "role": "prompter",
                "replies": [
                    {"text": "no", "role": "assistant", "rank": 1, "replies": []},
                    {"text": "gone", "role": "assistant", "rank": 2, "replies": [], "deleted": True},
                    {"text": "ho", "role": "assistant", "rank": 0, "replies": []},
                    {"text": "who", "role": "assistant", "replies": []},
                ],
            },
        },
    ),
]


@pytest.mark.parametrize(("name", "row"), COMPARISONS)
def test_comparisons(tmp_path: Path, name: str, row: dict[str, Any]) -> None:
    path = tmp_path / "data.jsonl"
    write_jsonl(path, [row])
    assert detect(path).name == name
    (record,) = read_comparisons(path)
    assert record.prompt.dialog == HI_HO[:1]
    assert (record.chosen, record.rejected, record.task) == ("ho", "no", "helpfulness")
    (prompt,) = read_prompts(path)
    assert prompt.dialog == HI_HO[:1]
    (safe,) = read_comparisons(path, task="safety")
    assert safe.task == safe.prompt.task == "safety"


def test_our_fields_travel_with_a_pair(tmp_path: Path) -> None:
    row = {
        **{"prompt": "hi", "chosen": "ho", "rejected": "no", "rating": "better", "margin": 2, "safety": "both_safe"},
        **{"task": "safety", "category": "c", "cluster": "k", "annotator": "a", "batch": "b", "model_chosen": "m"},
    }
    write_jsonl(tmp_path / "data.jsonl", [row])
    (record,) = read_comparisons(tmp_path / "data.jsonl")
    assert record == Comparison(
        Prompt("data-0", HI_HO[:1], "safety", "c", "data", "k"),
        *("ho", "no", "safety", "better", 2.0, "both_safe", "a", "b", "m"),
        source="data",
    )


def test_our_records_come_back_as_written(tmp_path: Path) -> None:
    prompt = Prompt("p-1", HI_HO[:1], "safety", "c", "s", "k")
    records = {
        "demonstrations": Demonstration((Message("system", "s"), *HI_HO), "last", "x"),
        "comparisons": Comparison(prompt, "ho", "no", "safety", "slightly_better", 0.5, "both_unsafe", "a", "b"),
        "prompts": prompt,
    }
    for kind, record in records.items():
        write_jsonl(tmp_path / f"{kind}.jsonl", [to_dict(record)])
        scanned = scan(tmp_path / f"{kind}.jsonl")
        assert (scanned.kind, scanned.records) == (kind, [record])


def test_what_stands_or_falls_together_is_one_cluster(tmp_path: Path) -> None:
    several = {"instruction": "hi", "instances": [{"input": name, "output": "ho"} for name in "ab"]}
    reply = {"text": "ho", "role": "assistant", "replies": [{"text": "and?", "role": "prompter", "replies": []}]}
    tree = {"message_tree_id": "t", "prompt": {"text": "hi", "role": "prompter", "replies": [reply]}}
    numbered = {"prompt": "hi", "cluster": 3}
    for row, clusters in ((several, ["data-0"] * 2), (tree, ["data-0"] * 2), (numbered, ["3"])):
        write_jsonl(tmp_path / "data.jsonl", [row])
        assert [prompt.cluster for prompt in read_prompts(tmp_path / "data.jsonl")] == clusters


@pytest.mark.parametrize(
    ("votes", "rating"),
    [
        ((1, 1, 1), "significantly_better"),
        ((1, 0, 1), "better"),
        ((1, 2, 1), "slightly_better"),
        ((0, 0, 1), "negligibly_better_or_unsure"),
        ((2, 2, 1), "slightly_better"),
        ((0, 0, 0), None),
        ((0, 1, 2), None),
    ],
)
def test_pandalm_votes_become_degrees(tmp_path: Path, votes: tuple[int, int, int], rating: str | None) -> None:
    row = {"instruction": "hi", "response1": "one", "response2": "two", "cmp_key": "a_b"}
    row |= {f"annotator{n}": vote for n, vote in enumerate(votes, 1)}  # type: ignore[dict-item]
    write_jsonl(tmp_path / "data.jsonl", [row, {**row, "annotator1": 1, "annotator2": 1, "annotator3": 1}])
    scanned = scan(tmp_path / "data.jsonl", "comparisons")
    if rating is None:
        assert scanned.skipped == {"a tie": 1}
        return
    first = scanned.records[0]
    winner = max((1, 2), key=votes.count)
    assert first.rating == rating
    assert first.chosen == ("one", "two")[winner - 1]
    assert first.model_chosen == ("a", "b")[winner - 1]


def test_hh_leaves_out_only_what_it_says(tmp_path: Path) -> None:
    start = "\n\nHuman: hi\n\nAssistant: ho\n\nHuman: more\n\nAssistant:"
    write_jsonl(
        tmp_path / "data.jsonl",
        [
            {"chosen": f"{start} yes", "rejected": f"{start} no\nHuman: inside a line"},
            {"chosen": f"{start} yes", "rejected": start},
            {"chosen": f"{start} yes", "rejected": f"{start} no\n\nAssistant: again"},
            {"chosen": f"{start} yes", "rejected": "\n\nHuman: hi\n\nAssistant: other"},
            {"chosen": f"{start} yes", "rejected": f"{start} yes"},
        ],
    )
    scanned = scan(tmp_path / "data.jsonl")
    assert [record.rejected for record in scanned.records] == ["no\nHuman: inside a line"]
    assert scanned.skipped == {
        "a turn is empty": 1,
        "speakers do not alternate": 1,
        "the transcripts differ before the last answer": 1,
        "the answers are the same": 1,
    }


def test_a_pair_of_the_same_answer_twice_is_left_out_and_counted(tmp_path: Path) -> None:
    prompt = {"id": "p", "dialog": turns(("user", "hi"))}
    replies = [{"text": text, "role": "assistant", "rank": rank, "replies": []} for rank, text in enumerate("aab")]
    tree = {"message_tree_id": "t", "prompt": {"text": "hi", "role": "prompter", "replies": replies}}
    for sound, same, kept, out in (
        ({"prompt": "hi", "chosen": "a", "rejected": "b"}, {"prompt": "hi", "chosen": "a", "rejected": " a\n"}, 1, 1),
        ({"prompt": prompt, "chosen": "a", "rejected": "b"}, {"prompt": prompt, "chosen": "a", "rejected": "a"}, 1, 1),
        (tree, tree, 4, 2),
    ):
        write_jsonl(tmp_path / "data.jsonl", [sound, same])
        scanned = scan(tmp_path / "data.jsonl")
        assert (len(scanned.records), scanned.skipped) == (kept, {"the answers are the same": out})
        said: list[str] = []
        assert len(read_comparisons(tmp_path / "data.jsonl", say=said.append)) == kept
        assert said == [f"{tmp_path}/data.jsonl: left out: {out} × the answers are the same"]


def test_a_tree_gives_pairs_prompts_and_its_best_path(tmp_path: Path) -> None:
    def node(text: str, role: str, rank: int | None, *replies: Any) -> dict[str, Any]:
        return {"text": text, "role": role, "rank": rank, "replies": list(replies)}

    answers = [
        node("c", "assistant", 2),
        node("a", "assistant", 0, node("why?", "prompter", None, node("so", "assistant", None))),
        node("b", "assistant", 1),
    ]
    row = {"message_tree_id": "t", "prompt": node("q", "prompter", None, *answers)}
    write_jsonl(tmp_path / "data.jsonl", [row])
    found = [(record.chosen, record.rejected) for record in read_comparisons(tmp_path / "data.jsonl")]
    assert found == [("a", "b"), ("a", "c"), ("b", "c")]
    (best,) = read_demonstrations(tmp_path / "data.jsonl")
    assert [message.content for message in best.dialog] == ["q", "a", "why?", "so"]
    prompts = read_prompts(tmp_path / "data.jsonl")
    assert [len(prompt.dialog) for prompt in prompts] == [1, 3]
    assert len({prompt.id for prompt in prompts}) == 2


def test_prompts_from_other_records_come_once_each_with_stable_ids(tmp_path: Path) -> None:
    rows = [{"prompt": p, "chosen": "ho", "rejected": r} for p, r in (("hi", "no"), ("hi", "nay"), ("hey", "no"))]
    write_jsonl(tmp_path / "data.jsonl", rows)
    scanned = scan(tmp_path / "data.jsonl", "prompts")
    assert [prompt.id for prompt in scanned.records] == ["data-0", "data-2"]
    assert scanned.skipped == {"the same prompt again": 1}
    write_jsonl(tmp_path / "asked.jsonl", [{"prompt": "hi"}, {"prompt": "hi", "task": "safety", "category": "c"}])
    asked = read_prompts(tmp_path / "asked.jsonl")
    assert [(prompt.id, prompt.task, prompt.category) for prompt in asked] == [
        ("asked-0", "helpfulness", ""),
        ("asked-1", "safety", "c"),
    ]


@pytest.mark.parametrize(
    ("error", "message"), [(FileNotFoundError, None), (PermissionError, "cannot be read: because")]
)
def test_a_folder_that_vanishes_or_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[OSError], message: str | None
) -> None:
    (tmp_path / "gone").mkdir()
    (tmp_path / "a.txt").write_text("a")
    scandir = os.scandir

    def scan(path: str) -> object:
        if path.endswith("gone"):
            raise error(1, "because", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scan)
    if message is None:
        assert files_of(tmp_path, (".txt",)) == [tmp_path / "a.txt"]
    else:
        with pytest.raises(BadInput, match=f"gone: {message}"):
            files_of(tmp_path, (".txt",))


def test_a_file_is_closed_where_a_row_is_wrong(tmp_path: Path) -> None:
    good = to_dict(Prompt("a", (Message("user", "owl"),)))
    write_jsonl(tmp_path / "p.jsonl", [good, {**good, "id": "b", "task": "owls"}, {**good, "id": "c"}])
    with pytest.raises(BadInput, match="task") as caught:
        read_prompts(tmp_path / "p.jsonl")
    held = [os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")]
    assert caught.traceback  # which holds the frames that read it
    assert [name for name in held if name.startswith(str(tmp_path))] == []


def test_directories_are_read_in_name_order(tmp_path: Path) -> None:
    (tmp_path / "b.json").write_text(json.dumps([{"instruction": "2", "output": "x"}]))
    write_jsonl(tmp_path / "a.jsonl", [{"prompt": "1", "completion": "x"}])
    (tmp_path / "sub").mkdir()
    write_jsonl(tmp_path / "sub" / "c.jsonl", [{"messages": turns(("user", "3"), ("assistant", "x"))}])
    (tmp_path / "LICENSE").write_text("not data")
    assert [record.dialog[0].content for record in read_demonstrations(tmp_path)] == ["1", "2", "3"]
    assert [prompt.id for prompt in read_prompts(tmp_path)] == ["a-0", "b-0", "c-0"]
    write_jsonl(tmp_path / "d.jsonl", [{"prompt": "1", "chosen": "x", "rejected": "y"}])
    with pytest.raises(BadInput, match="expected demonstrations, found "):
        read_demonstrations(tmp_path)


def test_lines_of_a_json_list_are_counted(tmp_path: Path) -> None:
    rows = [{"instruction": "a", "output": "b"}] * 3 + [{"instruction": "a", "output": 3}]
    for indent, line in ((None, 1), (2, 14)):
        (tmp_path / "data.json").write_text(json.dumps(rows, indent=indent))
        with pytest.raises(BadInput) as caught:
            read_demonstrations(tmp_path / "data.json")
        assert (caught.value.line, caught.value.field) == (line, "output")


BOOK = """# Title: A Book

## Author: Nobody

-------
_Translated by X_

## PART ONE

## Chapter 1 - The _Start_

It was *very* late,  and
the ***mole*** said \\*no\\*.

> A quote with [a link](http://x.y/z) and `code`.

   \t
* * *

_A song
of two lines_, snake_case_word, 2 * 3 * 4, 17__.

## Chapter 2
![picture](a.png)

## Chapter 3 #

<!-- note -->The end.
"""


def test_markdown_becomes_chapters() -> None:
    assert markdown_documents(BOOK) == [
        "Translated by X",
        "PART ONE\n\nChapter 1 - The Start\n\nIt was very late,  and\nthe mole said *no*.\n\n"
        "A quote with a link and `code`.\n\nA song\nof two lines, snake_case_word, 2 * 3 * 4, 17__.",
        "Chapter 2\n\nChapter 3\n\nThe end.",
    ]
    assert markdown_documents("no headings\r\n\r\nat all\n") == ["no headings\n\nat all"]
    assert markdown_documents("---\ntitle: x\n---\ntext") == ["text"]


def test_texts(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text(BOOK)
    (tmp_path / "b.txt").write_text("one\n\ntwo\n")
    write_jsonl(tmp_path / "c.jsonl", [{"text": "three"}, {"text": "four", "url": "x"}])
    (tmp_path / "d.jsonl.gz").write_bytes(gzip.compress(b'{"text": "five"}\n'))
    assert list(read_texts(tmp_path))[3:] == ["one\n\ntwo", "three", "four", "five"]
    assert detect(tmp_path / "a.md").name == "markdown"
    assert [detect(tmp_path / name).name for name in ("b.txt", "c.jsonl")] == ["text", "text_rows"]


REAL = [
    ("instructions/alpaca_en_demo.json", "alpaca", "demonstrations", 999, {}),
    ("instructions/gpteacher_roleplay.json", "alpaca", "demonstrations", 1923, {}),
    ("instructions/sharegpt_identity.json", "sharegpt", "demonstrations", 500, {}),
    ("instructions/user_oriented_instructions.jsonl", "self_instruct", "demonstrations", 252, {}),
    ("preferences/dpo_en_demo.json", "sharegpt_pairs", "comparisons", 300, {}),
    (
        *("preferences/hh_harmless.jsonl.gz", "hh_rlhf", "comparisons", 1790),
        {"speakers do not alternate": 7, "a turn is empty": 3},
    ),
    (
        *("preferences/pandalm.json", "pandalm", "comparisons", 593),
        {"a tie": 57, "an answer is empty": 43, "an answer is not text": 6, "the instruction is empty": 1},
    ),
    ("preferences/oasst_trees.jsonl", "oasst", "comparisons", 754, {}),
    ("safety/xstest_prompts.csv", "xstest", "prompts", 450, {}),
]


@pytest.mark.parametrize(("file", "name", "kind", "count", "skipped"), REAL)
def test_real_files(data_dir: Path, file: str, name: str, kind: str, count: int, skipped: dict[str, int]) -> None:
    scanned = scan(data_dir / file)
    assert (scanned.format, scanned.kind, len(scanned.records)) == (name, kind, count)
    assert scanned.skipped == skipped
    prompts = read_prompts(data_dir / file)
    assert len({prompt.id for prompt in prompts}) == len(prompts) > 100


def test_real_degrees_and_safety(data_dir: Path) -> None:
    ratings = [record.rating for record in read_comparisons(data_dir / "preferences/pandalm.json")]
    assert all(ratings.count(degree) > 2 for degree in set(ratings))
    assert len(set(ratings)) == 4
    prompts = read_prompts(data_dir / "safety/xstest_prompts.csv")
    assert sum(prompt.task == "safety" for prompt in prompts) == 200
    assert len(read_demonstrations(data_dir / "preferences/oasst_trees.jsonl")) == 100


def test_real_books(data_dir: Path) -> None:
    documents = list(read_texts(data_dir / "text"))
    assert len(documents) == 1000
    assert not any(line.startswith("#") for text in documents for line in text.split("\n"))
    assert not any("# Title" in text or "-------" in text for text in documents)
    letters = sum(map(len, documents))
    assert 9_200_000 < letters < 9_300_000


def test_prompts_of_several_files_are_each_read_once_and_never_mixed_up(tmp_path: Path) -> None:
    rows = {"a": ["Who sings?", "Why?"], "b": ["Who sleeps?"]}
    for folder, texts in rows.items():
        (tmp_path / folder).mkdir()
        write_jsonl(tmp_path / folder / "asked.jsonl", [{"prompt": text} for text in texts])
    a, b = (tmp_path / folder / "asked.jsonl" for folder in rows)
    assert read_prompts_of([a, a]) == read_prompts(a)
    with pytest.raises(
        BadInput, match=r"b/asked.jsonl: id: 'asked-0' is the id of another prompt too \(.*a/asked.jsonl"
    ):
        read_prompts_of([a, b])


BROKEN_ARRAYS = {
    '[{"text":"one"},\n {"text":"two"},\n {"text": oops}]': (3, "Expecting value at column 11"),
    '[{"text":"one"}\n {"text":"two"}]': (2, "Expecting ',' delimiter at column 2"),
    '[{"text":"one"},\n {"text":"two"}': (2, "Expecting ',' delimiter at column 16"),
    '[{"text":"one"},\n]': (2, "Expecting value at column 1"),
    '[{"text":"one"}]\n x': (2, "Extra data at column 2"),
    '[{"text":"one"},\n {"text":"tw': (2, "Unterminated string starting at at column 10"),
}


@pytest.mark.parametrize("text", BROKEN_ARRAYS)
@pytest.mark.parametrize("block", [1, 7, 1 << 20])
def test_a_broken_array_is_named_where_it_breaks(
    text: str, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ayni.formats.json_window.BLOCK", block)
    (tmp_path / "a.json").write_text(text)
    line, what = BROKEN_ARRAYS[text]
    with pytest.raises(BadInput) as error:
        list(read_texts(tmp_path / "a.json"))
    assert str(error.value) == f"{tmp_path / 'a.json'}:{line}: not JSON: {what}"


@pytest.mark.parametrize("block", [1, 3, 64, 1 << 20])
def test_an_array_is_read_the_same_in_blocks_of_any_size(
    block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ayni.formats.json_window.BLOCK", block)
    texts = ["a", 'quotes " and \\ and \n', "é🦉" * 20, "", "[1, 2]"] * 3
    for indent in (None, 2):
        (tmp_path / "a.json").write_text(json.dumps([{"text": text or "."} for text in texts], indent=indent))
        assert list(read_texts(tmp_path / "a.json")) == [text or "." for text in texts]
