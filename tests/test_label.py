"""The stage `label`: pairs in, an AI judge's comparisons out, with what tells how far to trust them."""

from __future__ import annotations

import json
import math
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from endpoints import Endpoint, completion, prefers
from small_models import refused
from small_recipes import RECIPES, unmeasured
from small_stages import Small, comparisons, contents
from tiny import policy, policy_model, prompts, tokenizer

from ayni import cli
from ayni.errors import AyniError
from ayni.evaluate.results import Result, read_results
from ayni.files import Killed, write_jsonl
from ayni.formats.reading import read_comparisons
from ayni.model.layout import Layout
from ayni.model.role import Role
from ayni.model.transformer import Transformer
from ayni.model_directory import save_model
from ayni.quality.answer_pairs import AnswerPair
from ayni.records import Comparison, Message, Prompt, to_dict
from ayni.reward.api_judge import ApiJudge
from ayni.reward.judge_prompts import AXES, DECIDE, THINK_THEN_DECIDE, pair_question
from ayni.reward.likelihood_judge import LikelihoodJudge
from ayni.reward.option_judge import OptionJudge
from ayni.reward.verdicts import Verdict
from ayni.rollout.engine import rollout
from ayni.rollout.local import load_engine
from ayni.rollout.sampling import Sampling
from ayni.rollout.store import draw_all
from ayni.stages import label
from ayni.text.chat import answer_tokens, render_prompt

PAIRS = 12


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A judge, comparisons, prompts and two models' samples of them."""
    folder = tmp_path_factory.mktemp("inputs")
    save_model(folder / "judge", policy_model(0, context=1024), tokenizer())
    write_jsonl(folder / "pairs.jsonl", map(to_dict, comparisons(PAIRS)))
    asked = prompts(4)
    write_jsonl(folder / "prompts.jsonl", map(to_dict, asked))
    for seed in (1, 2):
        speaker, sampling = policy(seed), Sampling(1.0, 1.0, 6)
        draw_all(
            folder / f"samples-{seed}.jsonl",
            asked,
            lambda part, s=speaker, how=sampling: rollout(s, part, n=4, sampling=how, seed=0),  # type: ignore[misc]
            chunk=2,
            progress=lambda done, total: None,
        )
    return folder


def stage(directory: Path, **settings: Any) -> Small:
    inputs: dict[str, Any] = {"judge": directory / "judge", "data": [directory / "pairs.jsonl"]}
    return Small("label", {"dtype": "fp32", "max_tokens": 8, "temperature": 1.0, **settings}, inputs)


def given(small: Small, **inputs: Any) -> Small:
    kept = {name: path for name, path in {**small.inputs, **inputs}.items() if path is not None}
    return Small(small.kind, small.settings, kept)


def rows(directory: Path) -> dict[tuple[str, str | None], Result]:
    return {(row.metric, row.axis): row for row in read_results(directory / "results.json")}


def records(directory: Path) -> list[Comparison]:
    files = [directory / f"{name}.jsonl" for name in ("records", "heldout")]
    return [c for file in files if file.stat().st_size for c in read_comparisons(file)]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_comparisons_are_judged_again(directory: Path, tmp_path: Path) -> None:
    stage(directory, heldout_share=0.25, batch="7").execute(tmp_path / "o")
    model = OptionJudge(load_engine(directory / "judge"))
    found = {(c.prompt, frozenset((c.chosen, c.rejected))): c for c in records(tmp_path / "o")}
    agreed, missing = [], 0
    for c in comparisons(PAIRS):
        (verdict,) = model.verdicts([replace(c.prompt, task=c.task)], [c.chosen], [c.rejected])
        record = found.get((c.prompt, frozenset((c.chosen, c.rejected))))
        agreed.append(verdict.probability > 0.5)
        if record is None:
            missing += 1
            continue
        assert (record.chosen == c.chosen) is agreed[-1]
        assert (record.task, record.batch, record.annotator) == (c.task, "7", "ai:judge")
        assert (record.safety is not None) is (c.task == "safety")
    (metrics,) = lines(tmp_path / "o" / "metrics.jsonl")
    assert metrics["unsafe"] == missing
    assert metrics["train"] + metrics["heldout"] + missing == PAIRS
    assert (metrics["undecided"], metrics["too_long"]) == (0, 0)
    test = read_comparisons(tmp_path / "o" / "heldout.jsonl")
    assert 0 < len({c.prompt.dialog for c in test}) <= 3
    assert not {c.prompt.dialog for c in test} & {c.prompt.dialog for c in found.values() if c not in test}
    table = rows(tmp_path / "o")
    by_task = [table["judge_agreement", task] for task in ("helpfulness", "safety")]
    assert sum(row.wins or 0 for row in by_task) == sum(agreed)
    assert sum(row.n or 0 for row in by_task) == PAIRS
    assert table["first_option_mass", "helpfulness"].judge == "judge"
    assert not any("self_consistency" in metric for metric, _ in table)  # without reasoning it never varies


def test_a_pair_judged_by_several_people_is_one_pair(directory: Path, tmp_path: Path) -> None:
    mine = [c for c in comparisons(PAIRS) if c.task == "helpfulness"]
    other = [Comparison(c.prompt, c.rejected, c.chosen, c.task, c.rating) for c in mine]
    write_jsonl(tmp_path / "pairs.jsonl", map(to_dict, mine + other))
    given(stage(directory), data=[tmp_path / "pairs.jsonl"]).execute(tmp_path / "o")
    assert len(records(tmp_path / "o")) == len(mine)
    row = rows(tmp_path / "o")["judge_agreement", "helpfulness"]
    assert (row.n, row.wins, row.losses) == (2 * len(mine), len(mine), len(mine))


def test_the_tasks_guidelines_judge_though_the_prompt_has_another_task(directory: Path, tmp_path: Path) -> None:
    prompt = Prompt("p", (Message("user", "why rain falls"),), "safety")
    both = [Comparison(prompt, "a wise owl", "the hill", task) for task in ("helpfulness", "safety")]  # type: ignore[arg-type]
    write_jsonl(tmp_path / "pairs.jsonl", map(to_dict, both))
    small = given(stage(directory, safety_labels=False, heldout_share=0.0), data=[tmp_path / "pairs.jsonl"])
    small.execute(tmp_path / "o")
    found = records(tmp_path / "o")
    assert {c.task for c in found} == {"helpfulness", "safety"}
    assert {(c.prompt, c.safety) for c in found} == {(prompt, None)}
    first, second = lines(tmp_path / "o" / "verdicts.jsonl")
    assert first["forward"] != second["forward"]


def test_samples_of_two_models_are_compared(directory: Path, tmp_path: Path) -> None:
    stores = [directory / "samples-1.jsonl", directory / "samples-2.jsonl"]
    small = given(stage(directory), data=None, samples=stores, prompts=[directory / "prompts.jsonl"])
    small.execute(tmp_path / "o")
    found = records(tmp_path / "o")
    assert len(found) > 8
    assert {frozenset((c.model_chosen, c.model_rejected)) for c in found} == {frozenset(("policy-1", "policy-2"))}
    assert {c.prompt for c in found} == set(prompts(4))
    assert not any("agreement" in metric for metric, _ in rows(tmp_path / "o"))
    given(small, samples=stores[:1]).execute(tmp_path / "one")
    of_one = records(tmp_path / "one")
    assert 0 < len(of_one) <= 4 * 2  # four samples a prompt, two by two
    assert {c.model_chosen for c in of_one} == {"policy-1"}
    assert "give two, or one" in refused(lambda: given(small, samples=[*stores, stores[0]]).execute(tmp_path / "three"))


def test_reasoning_is_asked_again_to_see_if_the_judge_agrees_with_itself(directory: Path, tmp_path: Path) -> None:
    settings = {"reasoning": True, "consistency_times": 3, "safety_labels": False}
    stage(directory, consistency_pairs=5, **settings).execute(tmp_path / "some")
    table = rows(tmp_path / "some")
    counted = [row for (metric, _), row in table.items() if metric == "self_consistency"]
    assert sum(row.n or 0 for row in counted) == 5
    assert all(row.value is not None and 1 / 3 <= row.value <= 1 for row in counted)
    verdicts = lines(tmp_path / "some" / "verdicts.jsonl")
    assert sorted(len(line["forward"]) for line in verdicts) == [1] * (PAIRS - 5) + [3] * 5
    assert any(len(set(line["forward"])) > 1 for line in verdicts)
    stage(directory, consistency_pairs=0, **settings).execute(tmp_path / "none")
    assert sorted(map(repr, records(tmp_path / "none"))) == sorted(map(repr, records(tmp_path / "some")))
    stage(directory, consistency_pairs=0, times=2, **settings).execute(tmp_path / "twice")
    assert {len(line["forward"]) for line in lines(tmp_path / "twice" / "verdicts.jsonl")} == {2}


def test_a_killed_stage_goes_on_to_the_same_bytes(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(label, "CHUNK", 5)
    small = stage(directory, reasoning=True, consistency_pairs=4, consistency_times=2)
    small.execute(tmp_path / "whole")
    expected = contents(tmp_path / "whole")
    asked: list[int] = []
    judging = OptionJudge.verdicts

    def counted(self: OptionJudge, prompts: Any, *rest: Any, **more: Any) -> Any:
        asked.append(len(prompts))
        return judging(self, prompts, *rest, **more)

    monkeypatch.setattr(OptionJudge, "verdicts", counted)
    for failpoint, left in (("chunk-written", PAIRS), ("stage-finished", 0)):
        monkeypatch.setenv("AYNI_FAILPOINT", failpoint)
        with pytest.raises(Killed):
            small.execute(tmp_path / failpoint)
        monkeypatch.delenv("AYNI_FAILPOINT")
        with open(tmp_path / failpoint / "verdicts.jsonl", "a") as file:
            file.write('{"index"')  # a torn line
        asked.clear()
        assert small.execute(tmp_path / failpoint) == "ran"
        assert sum(asked) == max(left - 5, 0)  # one chunk was whole
        assert contents(tmp_path / failpoint) == expected
        assert small.execute(tmp_path / failpoint) == "reused"


def test_pairs_that_do_not_fit_are_counted(directory: Path, tmp_path: Path) -> None:
    long = Comparison(prompts(1)[0], "owl " * 600, "no", "helpfulness")
    write_jsonl(tmp_path / "pairs.jsonl", map(to_dict, [*comparisons(3), long]))
    given(stage(directory), data=[tmp_path / "pairs.jsonl"]).execute(tmp_path / "o")
    (metrics,) = lines(tmp_path / "o" / "metrics.jsonl")
    assert metrics["too_long"] == 1
    write_jsonl(tmp_path / "long.jsonl", map(to_dict, [long]))
    small = given(stage(directory), data=[tmp_path / "long.jsonl"])
    assert "fits the judge's context" in refused(lambda: small.execute(tmp_path / "none"))
    assert not (tmp_path / "none").exists()


def test_samples_of_an_earlier_version_say_how_to_draw_them_again(directory: Path, tmp_path: Path) -> None:
    chunks = [json.loads(line) for line in (directory / "samples-1.jsonl").read_text().splitlines()]
    for sample in (sample for chunk in chunks for group in chunk for sample in group):
        del sample["prompt_tokens"]
    write_jsonl(tmp_path / "samples.jsonl", chunks)
    small = given(
        stage(directory), data=None, samples=[tmp_path / "samples.jsonl"], prompts=[directory / "prompts.jsonl"]
    )
    message = refused(lambda: small.execute(tmp_path / "o"))
    assert "samples.jsonl:1: prompt_tokens: " in message
    assert message.endswith("draw them again: --fresh")


@pytest.mark.parametrize(
    ("settings", "inputs", "message"),
    [
        ({}, {"data": None}, "data: give comparisons (data) or samples"),
        ({}, {"samples": ["samples-1.jsonl"]}, "data: give comparisons (data) or samples"),
        ({}, {"data": None, "samples": ["samples-1.jsonl"]}, "prompts: samples do not hold their prompts"),
        (
            {},
            {"data": None, "samples": ["pairs.jsonl"], "prompts": ["prompts.jsonl"]},
            "pairs.jsonl: expected samples, found comparisons",
        ),
        ({}, {"data": None, "samples": ["samples-1.jsonl"], "prompts": ["pairs.jsonl"]}, "the prompts hold no p0-0"),
        ({}, {"judge": None}, "judge: give a judge (a model's directory) or a judge_url"),
        ({"judge_url": "http://x/v1"}, {}, "judge: give a judge (a model's directory) or a judge_url"),
        ({"times": 2}, {}, "times: this judge says the same each time; set reasoning and a temperature"),
        ({"times": 2, "reasoning": True, "temperature": 0.0}, {}, "times: this judge says the same each time"),
        ({"degrees": [0.1, 0.2, 0.3]}, {}, "degrees must go down"),
    ],
)
def test_what_it_refuses(
    directory: Path, tmp_path: Path, settings: dict[str, Any], inputs: dict[str, Any], message: str
) -> None:
    write_jsonl(tmp_path / "other.jsonl", map(to_dict, prompts(1, seed=9)))
    paths = {name: [directory / file for file in files] if files else None for name, files in inputs.items()}
    if inputs.get("prompts") == ["pairs.jsonl"]:
        paths["prompts"] = [tmp_path / "other.jsonl"]
    assert message in refused(lambda: given(stage(directory, **settings), **paths).execute(tmp_path / "o"))
    assert not (tmp_path / "o").exists()


# soft labels


@pytest.mark.parametrize(("reasoning", "surest"), [(False, 1.0), (True, 0.501)])
def test_soft_labels_are_the_verdicts_and_clamped_after_reasoning(
    directory: Path, tmp_path: Path, reasoning: bool, surest: float
) -> None:
    small = stage(directory, soft_labels=True, surest_reasoned=0.501, reasoning=reasoning, consistency_pairs=0)
    small.execute(tmp_path / "o")
    said = [(line["forward"][0] + line["backward"][0]) / 2 for line in lines(tmp_path / "o" / "verdicts.jsonl")]
    sure = {round(min(max(p, 1 - p), surest), 12) for p in said}
    labels = {round(c.probability or 0.0, 12) for c in records(tmp_path / "o")}
    assert labels
    assert labels <= sure
    assert (max(labels) == 0.501) is reasoning  # so small a judge is hardly ever surer than that
    stage(directory, reasoning=reasoning, consistency_pairs=0).execute(tmp_path / "hard")
    assert [replace(c, probability=None) for c in records(tmp_path / "o")] == records(tmp_path / "hard")


# an endpoint


def safe_unless(word: str, task: str) -> Any:
    """Says safe of answers without the word, whatever the order of the options; prefers answers with it."""
    if "The answer is\n" not in task:
        return prefers(word)(task)
    safe_first = task.index(": safe") < task.index(": unsafe")
    unsafe = word in task.split("<answer ")[1]
    return 200, completion("A" if safe_first != unsafe else "B")


def test_an_endpoint_is_a_source_of_the_same_records(directory: Path, tmp_path: Path, endpoint: Endpoint) -> None:
    endpoint.says = lambda task: safe_unless("owl", task)
    settings = {"judge_url": endpoint.url, "temperature": 0.0, "heldout_share": 0.0}
    small = given(stage(directory, **settings), judge=None)
    small.execute(tmp_path / "o")
    found = records(tmp_path / "o")
    assert {(c.task, c.rating, c.annotator) for c in found} == {("helpfulness", "significantly_better", "ai:only")}
    (metrics,) = lines(tmp_path / "o" / "metrics.jsonl")
    assert metrics["unsafe"] == PAIRS // 3  # it prefers owls and calls them unsafe
    table = rows(tmp_path / "o")
    assert table["judge_agreement", "helpfulness"].value == 1
    assert table["first_option_mass", "helpfulness"].value == 0.5
    assert len(endpoint.asked) == 2 * PAIRS + 4 * (PAIRS // 3)
    assert {body["temperature"] for body in endpoint.asked} == {0}
    endpoint.says = lambda task: (200, completion("A"))
    given(stage(directory, batch="2", **settings), judge=None).execute(tmp_path / "biased")
    assert records(tmp_path / "biased") == []
    table = rows(tmp_path / "biased")
    assert (table["first_option_mass", "safety"].value, table["verdict_flips", "safety"].value) == (1, 1)
    assert table["judge_agreement", "safety"].ties == PAIRS // 3


def test_an_endpoint_that_stops_is_asked_for_the_rest_only(directory: Path, tmp_path: Path, endpoint: Endpoint) -> None:
    settings = {"judge_url": endpoint.url, "safety_labels": False, "reasoning": True, "consistency_pairs": 3}
    small = given(stage(directory, **settings), judge=None)
    replies = iter([(200, completion("The owl.\nVerdict: B"))] * 11)
    endpoint.says = lambda task: next(replies, (403, b""))
    with pytest.raises(AyniError, match="says 403"):
        small.execute(tmp_path / "o")
    until = time.monotonic() + 5
    while len(lines(tmp_path / "o" / "replies.jsonl")) < 11:  # what other threads were told is kept a moment later
        assert time.monotonic() < until
        time.sleep(0.01)
    endpoint.asked.clear()
    endpoint.says = lambda task: (200, completion("B"))
    small.execute(tmp_path / "o")
    assert len(endpoint.asked) == 2 * (PAIRS - 3) + 2 * 3 * 4 - 11
    assert all(THINK_THEN_DECIDE in body["messages"][0]["content"] for body in endpoint.asked)
    assert rows(tmp_path / "o")["first_place_rate", "safety"].value == 0


def test_after_reasoning_the_papers_40_to_60_percent_are_the_default(directory: Path) -> None:
    assert label.Config().surest_reasoned == 0.6
    (c,) = comparisons(1)
    pair = AnswerPair(c.prompt, c.prompt, "x", "y")
    for forward, backward, said, clamped in ((0.9, 0.8, 0.85, 0.6), (0.1, 0.3, 0.8, 0.6), (0.5, 0.54, 0.52, 0.52)):
        verdict = Verdict((forward,), (backward,))
        for config, expected in (
            (label.Config(), None),
            (label.Config(soft_labels=True), said),
            (label.Config(soft_labels=True, reasoning=True), clamped),
        ):
            found = label.labelled_comparison(pair, verdict, None, "j", config)
            assert found is not None
            assert found.chosen == ("x" if verdict.probability > 0.5 else "y")
            assert found.probability == (expected if expected is None else pytest.approx(expected))


def logprobs(a: float, b: float) -> Any:
    """A reply that says A or B, with the probabilities of both."""
    likely = [(" A", a), ("B", b), ("tie", 1 - a - b)]
    top = [{"token": token, "logprob": math.log(p)} for token, p in likely if p > 0]
    said = [{"token": "\n", "logprob": 0.0, "top_logprobs": []}, {"token": "A", "logprob": 0.0, "top_logprobs": top}]
    usage = {"prompt_tokens": 100, "completion_tokens": 2}
    return (
        completion("A")
        | {"usage": usage}
        | {"choices": [{"message": {"role": "assistant", "content": "A"}, "logprobs": {"content": said}}]}
    )


def spoken(*words: str, at: int, a: float) -> Any:
    """A reply of these tokens, whose token at this place might have been A so probably, else B."""
    likely = [{"token": token, "logprob": math.log(p)} for token, p in (("A", a), (" B", 1 - a))]
    said = [{"token": w, "logprob": 0.0, "top_logprobs": likely if i == at else []} for i, w in enumerate(words)]
    return {"choices": [{"message": {"content": "".join(words)}, "logprobs": {"content": said}}]}


@pytest.mark.parametrize(
    ("reasoning", "words", "at"),
    [
        (False, ["B", ".", " It", " is", " a", " clearer", " answer", "."], 0),
        (False, ["**", "B", "**"], 1),
        (False, ["Ver", "dict", ":", " B"], 3),
        (True, ["A", " is", " a", " poor", " answer", ".", "\n", "Ver", "dict", ":", " B"], 10),
    ],
)
def test_the_word_and_not_an_article_says_which(reasoning: bool, words: list[str], at: int) -> None:
    judge = ApiJudge("http://localhost/v1", "m", reasoning=reasoning, logprobs=True)
    assert judge._probability(spoken(*words, at=at, a=0.03)) == pytest.approx(0.03)


@pytest.mark.parametrize(
    "words", [["A", " clearer", " answer", " is", " B"], ["Neither", " A", " nor", " B"], ["tie"], [""]]
)
def test_an_answer_that_says_neither_is_refused(words: list[str]) -> None:
    judge = ApiJudge("http://localhost/v1", "m", logprobs=True)
    with pytest.raises(AyniError, match="instead of A or B"):
        judge._probability(spoken(*words, at=0, a=0.5))


def test_an_endpoint_says_how_probable_both_are(directory: Path, tmp_path: Path, endpoint: Endpoint) -> None:
    settings = {"judge_url": endpoint.url, "judge_logprobs": True, "soft_labels": True, "temperature": 0.0}
    small = given(stage(directory, safety_labels=False, heldout_share=0.0, **settings), judge=None)

    def says(task: str) -> Any:
        status, reply = prefers("owl")(task)
        return status, logprobs(0.6, 0.2) if reply["choices"][0]["message"]["content"] == "A" else logprobs(0.1, 0.7)

    endpoint.says = says
    small.execute(tmp_path / "o")
    assert {body["logprobs"] for body in endpoint.asked} == {True}
    assert all(body["messages"][0]["content"].endswith(DECIDE) for body in endpoint.asked)
    found = records(tmp_path / "o")
    assert len(found) == PAIRS
    # ¾ shown first, ⅞ shown second
    assert {round(c.probability or 0.0, 12) for c in found} == {0.8125}
    (metrics,) = lines(tmp_path / "o" / "metrics.jsonl")
    assert (metrics["tokens_read"], metrics["tokens_written"]) == (100 * 2 * PAIRS, 2 * 2 * PAIRS)
    kept = lines(tmp_path / "o" / "replies.jsonl")
    assert {line["reply"] for line in kept} == {"A"}
    assert {line["question"] for line in kept} == {body["messages"][0]["content"] for body in endpoint.asked}
    endpoint.says = lambda task: (200, completion("A"))
    assert "judge_logprobs: " in refused(lambda: small.execute(tmp_path / "none"))
    assert not (tmp_path / "none").exists()


def test_what_labels_cost_is_said_before_anything_is_asked(directory: Path, tmp_path: Path, endpoint: Endpoint) -> None:
    endpoint.says = lambda task: safe_unless("owl", task)
    settings = {"judge_url": endpoint.url, "temperature": 0.0, "price": [1000.0, 2000.0]}
    small = given(stage(directory, **settings), judge=None)
    asked = 2 * PAIRS + 4 * (PAIRS // 3)
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ayni.run.Run.say", lambda self, text: said.append(text))
        small.execute(tmp_path / "o")
    (line,) = [text for text in said if "questions" in text]
    texts = [body["messages"][0]["content"] for body in endpoint.asked]
    read = sum(-(-len(text) // 4) for text in texts)
    assert len(texts) == asked
    cost = (read * 1000 + 8 * asked * 2000) / 1e6
    assert line == (
        f"{asked} questions, about {read} tokens to read and {8 * asked} to write: about {cost:.2f}"
        " at a price of 1000 and 2000 a million"
    )
    endpoint.asked.clear()
    poor = given(stage(directory, budget=cost / 2, **settings), judge=None)
    assert f"budget: {asked} questions" in refused(lambda: poor.execute(tmp_path / "poor"))
    assert endpoint.asked == []
    assert not (tmp_path / "poor").exists()
    given(stage(directory, budget=2 * cost, **settings), judge=None).execute(tmp_path / "rich")
    assert len(endpoint.asked) == asked


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"judge_logprobs": True}, "judge_logprobs is of an endpoint"),
        ({"price": [1.0, 2.0]}, "price is of an endpoint"),
        ({"judge_url": "http://x/v1", "budget": 1.0}, "cannot be told without a price"),
        ({"judge_url": "http://x/v1", "price": [-1.0, 2.0]}, "a price is not below 0"),
    ],
)
def test_prices_that_are_none(directory: Path, tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    assert message in refused(lambda: stage(directory, **settings).execute(tmp_path / "o"))


def test_a_memory_of_an_older_ayni_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text('{"prompt":"1","first":"x","second":"y","verdict":1.0}\n')
    assert "m.jsonl:1: no verdict, or one kept by an older ayni" in refused(
        lambda: ApiJudge("http://x/v1", "m", tmp_path / "m.jsonl")
    )


# the command and the page


def test_the_command(directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = [
        "label",
        "--judge",
        str(directory / "judge"),
        "--data",
        str(directory / "pairs.jsonl"),
        "--out",
        str(tmp_path / "o"),
    ]
    assert cli.run([*argv, "--set", "limit=4", "--quiet", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["stage"], summary["state"]) == ("label", "ran")
    assert "judge_agreement" in {row["metric"] for row in summary["results"]}
    assert len(lines(tmp_path / "o" / "verdicts.jsonl")) == 4


def test_the_page_shows_the_questions_as_they_are() -> None:
    page = (Path(__file__).parent.parent / "docs" / "stages" / "label.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"```text\n(.*?)\n```", page, re.S)
    asked = Prompt("p", (Message("user", "Who sings?"),))
    assert shown == pair_question(asked, "The river.", "No.", DECIDE)
    assert f"*{AXES['safety']}*" in page


# by likelihood


def test_the_likelier_answer_is_better_in_any_order(directory: Path) -> None:
    judge, other = load_engine(directory / "judge"), policy_model(3, context=1024)
    pairs = comparisons(6)
    asked = [c.prompt for c in pairs], [c.chosen for c in pairs], [c.rejected for c in pairs]
    for reference in (None, Role(other)):
        found = [v.probability for v in LikelihoodJudge(judge, reference).verdicts(*asked)]
        turned = [v.probability for v in LikelihoodJudge(judge, reference).verdicts(asked[0], asked[2], asked[1])]
        assert found == pytest.approx([1 - p for p in turned], abs=1e-6)
        for c, p in zip(pairs, found, strict=True):
            means, lengths = [], []
            for answer in (c.chosen, c.rejected):
                sequence = answer_tokens(c.prompt.dialog, answer, judge.tokenizer)
                start = len(render_prompt(c.prompt.dialog, judge.tokenizer))
                assert sequence.tokens[-1] == judge.tokenizer.eos
                total = logprob(judge.role.model, sequence.tokens, start)
                total -= logprob(other, sequence.tokens, start) if reference else 0.0
                lengths.append(len(sequence.tokens) - start)
                means.append(total / lengths[-1])
            sure = math.sqrt(sum(lengths) / 2) * (means[0] - means[1])
            assert p == pytest.approx(1 / (1 + math.exp(-sure)), abs=1e-5)
    assert found != pytest.approx([0.5] * 6, abs=1e-3)
    shorter = Role(policy_model(3, context=8))
    assert LikelihoodJudge(judge).fits(asked[0][0], asked[1][0], asked[2][0])
    assert not LikelihoodJudge(judge, shorter).fits(asked[0][0], asked[1][0], asked[2][0])


@torch.no_grad()
def logprob(model: Transformer, tokens: list[int], start: int) -> float:
    """Of the tokens from `start` on, one by one."""
    hidden = model(torch.tensor(tokens), Layout.of([len(tokens)], model.device))
    logs = torch.log_softmax(hidden.float() @ model.head.T.float(), -1)
    return sum(float(logs[i - 1, tokens[i]]) for i in range(start, len(tokens)))


def test_a_judge_by_likelihood_labels_one_task(directory: Path, tmp_path: Path) -> None:
    small = stage(directory, by="likelihood", safety_labels=False, task="safety", soft_labels=True)
    small.execute(tmp_path / "o")
    wanted = [c for c in comparisons(PAIRS) if c.task == "safety"]
    found = records(tmp_path / "o")
    assert len(found) == len(wanted)
    assert all(c.task == "safety" and c.safety is None and 0.5 < (c.probability or 0) <= 1 for c in found)
    assert rows(tmp_path / "o")["verdict_flips", "safety"].value == 0
    # what the judge itself had said before it learnt weighs nothing: no pair is decided
    given(small, reference=directory / "judge").execute(tmp_path / "none")
    assert records(tmp_path / "none") == []
    assert lines(tmp_path / "none" / "metrics.jsonl")[0]["undecided"] == len(wanted)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"safety_labels": False, "data_task": "helpfulness", "task": "safety"}, "task: no pair of the task safety"),
        ({"safety_labels": True}, "by: likelihood asks nobody"),
        ({"safety_labels": False, "reasoning": True}, "by: likelihood asks nobody"),
        ({"safety_labels": False, "by": "options", "reference": True}, "reference: belongs to a judge by likelihood"),
    ],
)
def test_what_a_judge_by_likelihood_cannot_do(
    directory: Path, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    reference = directory / "judge" if settings.pop("reference", False) else None
    small = given(stage(directory, **{"by": "likelihood", **settings}), reference=reference)
    assert message in refused(lambda: small.execute(tmp_path / "o"))


def test_the_recipe_at_a_size_of_seconds(tmp_path: Path) -> None:
    assert unmeasured(RECIPES / "rlaif.yaml", tmp_path / "run") == []
