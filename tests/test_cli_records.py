"""`ayni import` and `ayni export` for preferences, from the command line: files, stores, formats, and refusals."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from feedback_cases import check, item, judgement
from small_stages import Small, prepare

from ayni import cli
from ayni.cli.records import stored
from ayni.feedback.address import without_password
from ayni.feedback.entries import PreferenceBatch
from ayni.feedback.store import open_store
from ayni.files import write_json, write_jsonl
from ayni.formats.reading import read_comparisons, read_demonstrations, read_prompts, scan
from ayni.reward.model import load_reward

RATED = [{"prompt": "Who sings?", "response": f"answer {n}", "score": n} for n in range(6)]
PAIR = {"prompt": "Who sings?", "chosen": "The river.", "rejected": "No.", "rating": "better"}


def call(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str, str]:
    code = cli.run([str(part) for part in argv])
    out, err = capsys.readouterr()
    return code, out, err


def ok(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[str, str]:
    code, out, err = call(capsys, *argv)
    assert code == 0, err
    return out, err


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "ratings.jsonl", RATED)
    write_jsonl(tmp_path / "pairs.jsonl", [PAIR, {**PAIR, "prompt": "And now?"}])
    return tmp_path


def filled(address: str) -> None:
    with open_store(address) as store:
        ann, bob = store.enrol("ann").id, store.enrol("bob").id
        store.add_batch(
            PreferenceBatch("week-1"), [item("owl"), item("hill", heldout=True), check("rain"), item("hare")]
        )
        store.add_batch(PreferenceBatch("week-2"), [item("moss", task="safety")])
        store.record(judgement("1", "owl", ann, "a", rating="better"))
        store.record(judgement("2", "owl", bob, "b"))
        store.record(judgement("3", "hill", ann, "b"))
        store.record(judgement("4", "rain", ann, "a"))
        store.record(judgement("5", "hare", ann, None, kind="skipped"))
        store.record(judgement("6", "moss", bob, "a", rating="slightly_better", safety_a=True, safety_b=False))


def test_ratings_become_pairs(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    out, err = ok(capsys, "import", "ratings.jsonl", "pairs-of-ratings.jsonl")
    assert out == "pairs-of-ratings.jsonl\n"
    assert "ratings.jsonl: 6 comparisons in the format ratings" in err
    assert "left out: 9 × more than 6 pairs of one prompt" in err
    found = read_comparisons(folder / "pairs-of-ratings.jsonl")
    assert found == read_comparisons(folder / "ratings.jsonl")
    assert scan(folder / "pairs-of-ratings.jsonl").format == "comparison"


def test_how_many_pairs_which_ones_and_what_else(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    for seed in (1, 2):
        ok(capsys, "import", "ratings.jsonl", f"{seed}.jsonl", "--pairs-per-prompt", 3, "--seed", seed)
    one, two = ((folder / f"{seed}.jsonl").read_text() for seed in (1, 2))
    assert len(one.splitlines()) == len(two.splitlines()) == 3
    assert one != two
    value = json.loads(ok(capsys, "import", "ratings.jsonl", "j.jsonl", "--as", "judgements", "--json")[0])
    assert value == {
        "source": "ratings.jsonl",
        "output": "j.jsonl",
        "format": "ratings",
        "kind": "judgements",
        "records": 6,
        "skipped": {},
    }
    assert scan(folder / "j.jsonl").format == "judgement"
    assert read_comparisons(folder / "j.jsonl") == read_comparisons(folder / "ratings.jsonl")


def test_other_tools_files(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    data = {"prompt": "Who sings?", "answer1": "The river.", "answer2": "No."}
    choice = {"type": "pairwise", "value": {"selected": "left"}, "from_name": "c", "to_name": ["answer1", "answer2"]}
    annotations = [{"result": [choice]}, {"result": [], "was_cancelled": True}]
    write_json(folder / "studio.json", [{"id": 1, "data": data, "annotations": annotations}])
    _, err = ok(capsys, "import", "studio.json", "o.jsonl")
    assert "studio.json: 1 comparisons in the format label_studio" in err
    assert "left out: 1 × a cancelled annotation" in err
    out, _ = ok(capsys, "inspect", "studio.json")
    assert "label_studio" in out
    ok(capsys, "import", "pairs.jsonl", "prompts.jsonl", "--as", "prompts")
    assert [p.id for p in read_prompts(folder / "prompts.jsonl")] == ["pairs-0", "pairs-1"]
    write_jsonl(folder / "edits.jsonl", [{"prompt": "Who?", "original": "No.", "edited": "I."}])
    ok(capsys, "import", "edits.jsonl", "demos.jsonl", "--as", "demonstrations")
    assert read_demonstrations(folder / "demos.jsonl")[0].dialog[-1].content == "I."


@pytest.mark.parametrize("form", ["ayni", "trl", "hh-rlhf", "csv"])
def test_files_go_out_in_every_format(capsys: pytest.CaptureFixture[str], folder: Path, form: str) -> None:
    target = folder / ("out.csv" if form == "csv" else "out.jsonl")
    value = json.loads(ok(capsys, "export", "pairs.jsonl", target, "--format", form, "--json")[0])
    assert (value["records"], value["heldout"], value["format"], value["skipped"]) == (2, 0, form, {})
    if form == "csv":
        rows = list(csv.DictReader(target.read_text(encoding="utf-8-sig").splitlines()))
        assert [row["prompt"] for row in rows] == ["Who sings?", "And now?"]
        return
    ours = [(c.prompt.dialog, c.chosen, c.rejected) for c in read_comparisons(folder / "pairs.jsonl")]
    assert [(c.prompt.dialog, c.chosen, c.rejected) for c in read_comparisons(target)] == ours


def test_a_store_goes_out_without_what_it_holds_out(
    capsys: pytest.CaptureFixture[str], folder: Path, new_address: Callable[[], str]
) -> None:
    address = new_address()
    filled(address)
    value = json.loads(ok(capsys, "export", address, "all.jsonl", "--format", "ayni", "--json")[0])
    assert value["records"] == 3
    assert value["skipped"] == {"gold check": 1, "skipped": 1, "held out (--heldout FILE writes them)": 1}
    found = read_comparisons(folder / "all.jsonl")
    assert [(c.prompt.id, c.annotator, c.batch) for c in found] == [
        ("prompt-owl", "ann", "week-1"),
        ("prompt-owl", "bob", "week-1"),
        ("prompt-moss", "bob", "week-2"),
    ]
    assert (found[0].rating, found[2].safety, found[2].task) == ("better", "chosen_safe", "safety")
    out, err = ok(capsys, "export", address, "t.jsonl", "--format", "trl", "--heldout", "h.jsonl", "--batch", "week-1")
    assert out == "t.jsonl\nh.jsonl\n"
    assert "2 comparisons, 1 held out" in err
    assert [c.prompt.dialog[0].content for c in read_comparisons(folder / "h.jsonl")] == ["What is hill?"]


def test_a_store_s_file_is_told_by_its_content(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    filled(str(folder / "preferences"))
    ok(capsys, "export", "preferences", "out.jsonl", "--format", "ayni")
    kept, apart, _ = stored(str(folder / "preferences"), [])
    assert (len(kept), len(apart)) == (3, 1)
    assert read_comparisons(folder / "out.jsonl") == kept


def test_a_password_is_not_shown() -> None:
    assert without_password("postgresql+psycopg://me:secret@host/base") == "postgresql+psycopg://me:***@host/base"
    assert without_password("pairs.jsonl") == "pairs.jsonl"


def _lines(name: str, *rows: Any) -> Callable[[Path], None]:
    return lambda folder: (write_jsonl(folder / name, rows), None)[1]


SYSTEM = {"prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]}
REFUSED: dict[str, tuple[Callable[[Path], Any], list[str], str]] = {
    "onto a file": (_lines("o.jsonl", 1), ["import", "ratings.jsonl", "o.jsonl"], "o.jsonl: exists already"),
    "another suffix": (_lines("x"), ["import", "ratings.jsonl", "o"], "o: the records go to a file of lines"),
    "nothing": (_lines("x"), ["import", "nope.jsonl", "o.jsonl"], "nope.jsonl: no such file"),
    "texts": (_lines("t.jsonl", {"text": "a"}), ["import", "t.jsonl", "o.jsonl"], "t.jsonl: holds texts, not records"),
    "as something else": (_lines("x"), ["import", "pairs.jsonl", "o.jsonl", "--as", "demonstrations"],
                          "pairs.jsonl: expected demonstrations, found comparisons (format pairs)"),
    "a bad row": (_lines("r.jsonl", RATED[0], {**RATED[1], "score": "x"}), ["import", "r.jsonl", "o.jsonl"],
                  "r.jsonl:2: score: 'x' is neither"),
    "a tokenizer": (_lines("x"), ["import", "pairs.jsonl", "o.jsonl", "--tokenizer", "t"], "records need no tokenizer"),
    "a model as records": (lambda f: (f / "m").mkdir(), ["import", "m", "o", "--as", "prompts"], "m: a model is read"),
    "export onto a file": (_lines("o.jsonl", 1), ["export", "pairs.jsonl", "o.jsonl", "--format", "trl"],
                           "o.jsonl: exists already"),
    "export nothing": (_lines("x"), ["export", "nope.jsonl", "o", "--format", "trl"], "nope.jsonl: no such file"),
    "a file's batch": (_lines("x"), ["export", "pairs.jsonl", "o", "--format", "trl", "--batch", "b"],
                       "pairs.jsonl: only a preference store knows what --batch means"),
    "a file's held-out": (_lines("x"), ["export", "pairs.jsonl", "o", "--format", "trl", "--heldout", "h"],
                          "knows what --heldout means"),
    "a model's batch": (_lines("x"), ["export", "m", "o", "--format", "hf", "--batch", "b"], "a model has no batches"),
    "one file for both": (_lines("x"), ["export", "s.db", "o", "--format", "trl", "--heldout", "o"],
                          "o: heldout: held-out comparisons go to a file of their own"),
    "an unknown batch": (lambda f: filled(str(f / "s.db")), ["export", "s.db", "o", "--format", "trl", "--batch", "w"],
                         "batch: there is no batch 'w'; batches: week-1, week-2"),
    "an empty store": (lambda f: open_store(str(f / "s.db")).close(), ["export", "s.db", "o", "--format", "trl"],
                       "s.db: there are no comparisons to export"),
    "hh and a system message": (_lines("s.jsonl", {**PAIR, **SYSTEM}),
                                ["export", "s.jsonl", "o", "--format", "hh-rlhf"],
                                "comparison 1: a transcript of hh-rlhf has no system messages"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_in_one_line_leaves_nothing(
    capsys: pytest.CaptureFixture[str], folder: Path, case: str
) -> None:
    make, argv, says = REFUSED[case]
    make(folder)
    before = {path.name for path in folder.iterdir() if not path.name.startswith("s.db")}
    code, out, err = call(capsys, *argv)
    assert (code, out) == (2, "")
    assert says in err
    assert err.count("\n") == 1
    assert {path.name for path in folder.iterdir() if not path.name.startswith("s.db")} == before


def test_a_reward_model_learns_from_an_export_as_it_is(folder: Path) -> None:
    small = prepare(folder / "inputs")["reward"]
    choice = {"type": "pairwise", "value": {"selected": "right"}, "from_name": "c", "to_name": ["answer1", "answer2"]}
    tasks = [
        {
            "id": n,
            "data": {"prompt": f"rain {n}", "answer1": "hill", "answer2": "owl"},
            "annotations": [{"result": [choice]}],
        }
        for n in range(8)
    ]
    write_json(folder / "studio.json", tasks)
    data = [folder / "studio.json", folder / "ratings.jsonl"]
    settings = {**small.settings, "task": "helpfulness", "safety_weight": 0.0, "other_share": 0.0, "epochs": 8}
    Small("reward", settings, {"model": small.inputs["model"], "data": data}).execute(folder / "rm")
    reward = load_reward(folder / "rm" / "model")
    prompt = read_comparisons(folder / "studio.json")[0].prompt
    good, bad = reward.score_answers([prompt, prompt], ["owl", "hill"]).tolist()
    assert good > bad
