"""TruthfulQA's, ToxiGen's and BOLD's protocols on files made up here; nothing is copied from those data sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from small_stages import Small, prepare
from tiny import language_model, policy, tokenizer

from ayni.errors import BadInput
from ayni.evaluate.results import Result, read_results
from ayni.evaluate.sentiment import sentiment_analyser
from ayni.evaluate.truthfulness import TRUE, Form, asked, both_items, choice_items, choices, continued, judged_items
from ayni.files import write_jsonl
from ayni.formats.reading import read_prompts, read_questions_of, scan
from ayni.model.role import Role
from ayni.parallel import Ranks
from ayni.records import Question, Sample, to_dict
from ayni.rollout.local import LocalEngine
from ayni.stages.probe import toxic_words
from ayni.text.chat import render_prompt

QUESTIONS = [
    Question("owl", "who may sing", ("the owl", "a wise owl"), ("the hare", "rain", "the hill"), "birds"),
    Question("rain", "why rain falls", ("on the green hill",), ("at night",), "weather"),
    Question("hare", "who asks", ("the hare",), ("an owl", "the rain"), "birds"),
]
SETTINGS = {"dtype": "fp32", "max_tokens": 8}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("inputs")


@pytest.fixture(scope="module")
def model(directory: Path) -> Path:
    prepare(directory)
    write_jsonl(directory / "questions.jsonl", map(to_dict, QUESTIONS))
    groups = [f"group {i % 3}" for i in range(30)]
    said = ({"prompt": f"the {'hare' if i % 2 else 'owl'} {i}", "category": g} for i, g in enumerate(groups))
    write_jsonl(directory / "groups.jsonl", said)
    return directory / "policy"


def results(directory: Path) -> dict[tuple[str, str | None], Result]:
    return {(row.metric, row.judge): row for row in read_results(directory / "results.json")}


# Formats


def test_truthfulqas_two_files_are_questions(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text(
        "Type,Category,Question,Best Answer,Correct Answers,Incorrect Answers,Source\n"
        'a,kitchen,Which?,This,"This one; This ; That","Neither; "" ; None",x\n'
    )
    (found,) = read_questions_of([table])
    assert found == Question("table-0", "Which?", ("This", "This one", "That"), ("Neither", '"', "None"), "kitchen",
                             "table")  # fmt: skip
    tasks = tmp_path / "tasks.json"
    targets = {"mc1_targets": {"b": 0, "a": 1}, "mc2_targets": {"c": 1, "a": 1, "d": 0}}
    tasks.write_text(json.dumps([{"question": "Which?", **targets}]))
    (found,) = read_questions_of([tasks])
    assert (found.correct, found.incorrect) == (("a", "c"), ("b", "d"))
    own = tmp_path / "own.jsonl"
    own.write_text(json.dumps({"question": "Which?", "correct": ["a"], "incorrect": ["b"]}) + "\n")
    assert read_questions_of([own])[0].id == "own-0"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "q", "correct": [], "incorrect": ["b"]}, ":1: correct: there is no answer"),
        ({"question": "q", "correct": ["a"], "incorrect": ["b", "a"]}, ":1: incorrect: 'a' is both right and wrong"),
        ({"question": " ", "correct": ["a"], "incorrect": ["b"]}, ":1: question: the text is empty"),
        ({"question": "q", "correct": ["a", ""], "incorrect": ["b"]}, ":1: correct: the text is empty"),
        ({"question": "q", "correct": "a", "incorrect": ["b"]}, ":1: correct: Input should be a valid array"),
        ({"question": "q", "correct": ["a"], "incorrect": ["b"], "best": "a"}, ":1: best: "),
        ({"question": "q", "correct": ["[INST]"], "incorrect": ["b"]}, ":1: correct"),
        ({"question": "q", "mc1_targets": {"a": 2}}, ":1: mc1_targets: expected an object of answers, each 1 or 0"),
        ({"question": "q", "mc1_targets": {"a": 1}}, ":1: mc2_targets: there is no answer"),
    ],
)
def test_wrong_questions_name_their_line(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    (tmp_path / "q.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(BadInput) as caught:
        scan(tmp_path / "q.jsonl", "questions")
    assert message in str(caught.value)


def test_two_questions_of_one_id_are_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_jsonl(tmp_path / f"{name}.jsonl", [to_dict(QUESTIONS[0])])
    with pytest.raises(BadInput, match="'owl' is the id of another question too"):
        read_questions_of([tmp_path / "a.jsonl", tmp_path / "b.jsonl"])


# Truthfulness


def slow_logprob(role: Role, before: list[int], answer: list[int]) -> float:
    """Token by token, each after a forward pass of its own."""
    from ayni.model.layout import Layout

    total = 0.0
    with torch.no_grad():
        for i, token in enumerate(answer):
            read = torch.tensor(before + answer[:i])
            hidden = role.model(read, Layout.of([len(read)], role.device))
            total += float((hidden[-1] @ role.model.head.t()).log_softmax(-1)[token])
    return total


@pytest.mark.parametrize("form", [Form(), Form(chat=False), Form(chat=False, primer=QUESTIONS[1:])])
def test_multiple_choice_is_by_the_answers_own_tokens(form: Form) -> None:
    words, role = tokenizer(), Role(language_model(3))
    items = choice_items(QUESTIONS, role, words, 100, Ranks(), form, model="m")
    for question in QUESTIONS:
        rows = choices(question, words, form)
        sums = []
        for row, answer in zip(rows, (*question.correct, *question.incorrect), strict=True):
            start = row.mask.index(True)
            assert words.decode(row.tokens[start:]).strip() == answer
            assert row.tokens[-1] != words.eos
            sums.append(slow_logprob(role, row.tokens[:start], row.tokens[start:]))
        weights = torch.tensor(sums, dtype=torch.float64).softmax(0)
        mc1, mc2 = (next(i for i in items if (i.metric, i.id) == (m, question.id)) for m in ("mc1", "mc2"))
        known = len(question.correct)
        assert mc1.value == float(sums[0] > max(sums[known:]))
        assert mc2.value == pytest.approx(float(weights[:known].sum()), abs=1e-4)
        assert (mc1.part, mc1.cluster, mc1.model) == (question.category, question.id, "m")


def test_chat_questions_begin_as_a_prompt_does() -> None:
    words = tokenizer()
    row = choices(QUESTIONS[0], words, Form())[0]
    start = row.mask.index(True)
    assert row.tokens[:start] == render_prompt(asked(QUESTIONS[0], Form()).dialog, words)


def test_a_base_model_reads_answered_questions_first() -> None:
    """Lin et al. put six before each, and count what stands before the next line."""
    form = Form(chat=False, primer=QUESTIONS[1:2])
    (message,) = asked(QUESTIONS[0], form).dialog
    known = f"Q: {QUESTIONS[1].question}\nA: {QUESTIONS[1].correct[0]}\n\n"
    assert message.content == f"{known}Q: {QUESTIONS[0].question}\nA:"
    assert form.answer(" in the reeds\n\nQ: and the hare?") == "in the reeds"
    assert Form().answer(" one\ntwo ") == "one\ntwo"


def test_judges_say_yes_or_no() -> None:
    """The likelier word, by a slow reading; what both say together is their product."""
    judge = LocalEngine(Role(language_model(5)), tokenizer(), "truth")
    answers = [Sample(q.id, "helpfulness", (1,), (5,), (-1.0,), f" {q.correct[0]} ", "stop") for q in QUESTIONS]
    items = judged_items("truthful", QUESTIONS, answers, judge, TRUE, 200, Form(), model="m")
    for question, item in zip(QUESTIONS, items, strict=True):
        text = f"Q: {question.question}\nA: {question.correct[0]}\nTrue:"
        both = [continued(text, word, judge.tokenizer) for word in (" yes", " no")]
        sums = [slow_logprob(judge.role, r.tokens[: r.mask.index(True)], r.tokens[r.mask.index(True) :]) for r in both]
        assert item.value == float(sums[0] > sums[1])
        assert item.judge == "truth"
    together = both_items(items, [*items[:-1], items[-1]])
    assert [item.value for item in together] == [item.value for item in items]


# Toxicity, sentiment


def test_words_are_found_whole_in_any_case(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("rat\n\n  stupid fool \nc++\n")
    found = toxic_words([tmp_path / "words.txt"])
    said = {"You RAT!": True, "a rational rate": False, "Stupid fool.": True, "stupid old fool": False, "c++": True}
    assert {text: bool(found.search(text)) for text in said} == said


def test_vader_is_asked_for_by_name_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("vaderSentiment", "vaderSentiment.vaderSentiment"):
        monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(BadInput, match=r"vaderSentiment, which is not installed; pip install 'ayni\[sentiment\]'"):
        sentiment_analyser()


def test_vader_knows_good_from_bad() -> None:
    pytest.importorskip("vaderSentiment", reason="the extra sentiment is not installed")
    score = sentiment_analyser()
    assert -1 <= score("She is a horrible, terrible failure.") < -0.3 < 0.3 < score("She is a wonderful friend!") <= 1
    assert score("She is a person.") == 0


# The stage


def test_a_stage_of_all_three(
    model: Path, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "toxic.py").write_text("def score(prompts, answers):\n    return [len(a) / 20 for a in answers]\n")
    (tmp_path / "words.txt").write_text("owl\n")
    felt: list[str] = []

    def score(text: str) -> float:
        felt.append(text)
        return 1 - 2 * ("hare" in text)

    monkeypatch.setattr("ayni.stages.probe.sentiment_analyser", lambda: score)
    inputs: dict[str, Any] = {
        "model": model,
        "questions": [directory / "questions.jsonl"],
        "truth_judge": directory / "base",
        "informative_judge": directory / "talker",
        "toxic_prompts": [directory / "groups.jsonl"],
        "classifier": tmp_path / "toxic.py",
        "toxic_words": [tmp_path / "words.txt"],
        "sentiment_prompts": [directory / "groups.jsonl"],
    }
    small = Small("probe", {**SETTINGS, "classifier_function": "score", "toxic_above": 0.6}, inputs)
    small.execute(tmp_path / "p")
    rows = results(tmp_path / "p")
    items = [json.loads(line) for line in (tmp_path / "p" / "items.jsonl").read_text().splitlines()]
    assert {(m, j) for m, j in rows if ":" not in m} == {
        ("mc1", None), ("mc2", None), ("truthful", "base"), ("informative", "talker"),
        ("truthful_and_informative", "base"), ("toxic", "classifier"), ("toxic", "words"), ("sentiment", "vader"),
    }  # fmt: skip
    assert {m for m, j in rows if j == "vader"} == {"sentiment", *(f"sentiment:group {i}" for i in range(3))}
    beginnings = tuple(prompt.dialog[-1].content for prompt in read_prompts(directory / "groups.jsonl"))
    assert len(felt) == 30
    assert all(text.startswith(beginnings) for text in felt)
    assert rows["mc1:birds", None].n == 2
    assert rows["toxic", "words"].n == 30
    assert rows["toxic", "words"].interval is not None
    both = [i["value"] for m in ("truthful", "informative") for i in items if i["metric"] == m]
    together = [i["value"] for i in items if i["metric"] == "truthful_and_informative"]
    assert together == [a * b for a, b in zip(both[:3], both[3:], strict=True)]
    shown = [json.loads(line) for line in (tmp_path / "p" / "samples.jsonl").read_text().splitlines()]
    assert len(shown) == 40
    of_questions = ("questions", "truth_judge", "informative_judge")
    again = Small("probe", small.settings, {name: given for name, given in inputs.items() if name not in of_questions})
    again.execute(tmp_path / "again", limit=3)
    assert results(tmp_path / "again")["toxic", "words"].n == 9


def test_a_base_model_goes_on_with_the_text(model: Path, directory: Path, tmp_path: Path) -> None:
    engine = policy()
    from ayni.rollout.engine import rollout
    from ayni.rollout.sampling import Sampling

    beginnings = read_prompts(directory / "groups.jsonl")[:2]
    groups = rollout(engine, beginnings, n=1, sampling=Sampling(0, 1, 4), seed=0, plain=True)
    words = tokenizer()
    for prompt, (sample,) in zip(beginnings, groups, strict=True):
        assert sample.prompt_tokens == (words.bos, *words.encode(prompt.dialog[-1].content))
    (tmp_path / "words.txt").write_text("owl\n")
    inputs = {"model": model, "toxic_prompts": [directory / "groups.jsonl"], "toxic_words": [tmp_path / "words.txt"]}
    Small("probe", {**SETTINGS, "chat": False}, inputs).execute(tmp_path / "p")
    assert results(tmp_path / "p")["toxic", "words"].n == 30
    short = Question("q", "who", ("the owl",), ("the hare",))
    write_jsonl(tmp_path / "q.jsonl", [to_dict(short)])
    inputs = {"model": model, "truth_judge": directory / "base", "questions": [tmp_path / "q.jsonl"]}
    inputs["primer"] = [tmp_path / "q.jsonl"]
    Small("probe", {**SETTINGS, "chat": False}, inputs).execute(tmp_path / "primed")
    assert results(tmp_path / "primed")["truthful", "base"].n == 1


@pytest.mark.parametrize(
    ("names", "settings", "message"),
    [
        ((), {}, "questions: nothing to ask; give questions, toxic_prompts or sentiment_prompts"),
        (("toxic_prompts",), {}, "toxic_prompts: nobody says what is toxic; give a classifier, or a list of toxic_w"),
        (("questions", "toxic_words"), {}, "toxic_words: it is for toxic_prompts; give toxic_prompts"),
        (("toxic_prompts", "toxic_words", "truth_judge"), {}, "truth_judge: it is for questions"),
        (("questions", "primer"), {}, "primer: answered questions stand before the texts that a base model goes on"),
        (("sentiment_prompts",), {}, "sentiment_prompts: sentiment is measured by vaderSentiment, which is not"),
    ],
)
def test_what_cannot_be_measured_is_told_before_anything_is_drawn(
    model: Path, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...],
    settings: dict[str, Any], message: str,
) -> None:  # fmt: skip
    for module in ("vaderSentiment", "vaderSentiment.vaderSentiment"):
        monkeypatch.setitem(__import__("sys").modules, module, None)
    (tmp_path / "words.txt").write_text("owl\n")
    every: dict[str, Any] = {
        "questions": [directory / "questions.jsonl"],
        "toxic_prompts": [directory / "groups.jsonl"],
        "sentiment_prompts": [directory / "groups.jsonl"],
        "toxic_words": [tmp_path / "words.txt"],
        "truth_judge": directory / "base",
        "primer": [directory / "questions.jsonl"],
    }
    inputs = {"model": model, **{name: every[name] for name in names}}
    with pytest.raises(BadInput) as caught:
        Small("probe", {**SETTINGS, **settings}, inputs).execute(tmp_path / "p")
    assert message in str(caught.value)


def test_questions_that_do_not_fit_are_dropped_and_counted(model: Path, tmp_path: Path) -> None:
    long = Question("long", "the owl " * 60, ("a",), ("b",))
    write_jsonl(tmp_path / "q.jsonl", map(to_dict, [*QUESTIONS, long]))
    Small("probe", SETTINGS, {"model": model, "questions": [tmp_path / "q.jsonl"]}).execute(tmp_path / "p")
    assert results(tmp_path / "p")["mc1", None].n == 3
    write_jsonl(tmp_path / "none.jsonl", [to_dict(long)])
    with pytest.raises(BadInput, match="no question and answer fit the model's context of 96 tokens"):
        Small("probe", SETTINGS, {"model": model, "questions": [tmp_path / "none.jsonl"]}).execute(tmp_path / "n")
