"""What the stages make of their inputs: what is kept, dropped, split, chosen and logged. (PPO: test_ppo.)"""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_stages import Small, comparisons, prepare
from tiny import SENTENCE, policy, prompts, tokenizer

from ayni.config import apply_sets, parse_config
from ayni.errors import BadInput
from ayni.evaluate.results import read_results
from ayni.files import Killed, read_object, write_jsonl
from ayni.formats.reading import read_comparisons, read_demonstrations, read_prompts
from ayni.introduction import Introduction, read_introduction
from ayni.maths.best_of import best_of_bound
from ayni.model.adapters import Lora, adapter_of
from ayni.model.compute import Compute
from ayni.model.role import Role
from ayni.model_directory import load_model
from ayni.records import MARGINS, Comparison, Demonstration, Message, Prompt, Sample, from_dict, to_dict
from ayni.reward.combine import Scores
from ayni.reward.model import load_reward
from ayni.rollout.engine import sampled_sequence
from ayni.rollout.store import read_groups
from ayni.run import Run
from ayni.runs.execution import execute
from ayni.runs.faces import load_stage
from ayni.stage import COMPUTE
from ayni.stages import pretrain, reject, reward, rrhf, sft
from ayni.stages.kto import mismatched
from ayni.text.chat import answer_tokens, render_prompt
from ayni.text.token_file import PackedRows, TokenFile, write_token_file
from ayni.text.tokenizer import load_tokenizer
from ayni.train.batch import Group, Pair, batch_of
from ayni.train.objectives import NextToken
from ayni.train.trainer import Optimiser

LONG = " ".join([SENTENCE] * 4)  # more than a context of 96 tokens


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Small]:
    return prepare(tmp_path_factory.mktemp("inputs"))


def metrics(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def given(small: Small, **inputs: Any) -> Small:
    """The stage with other inputs; None takes one away."""
    kept = {name: path for name, path in {**small.inputs, **inputs}.items() if path is not None}
    return Small(small.kind, small.settings, kept)


# Fitting


def test_fine_tuning_learns_its_answers(stages: dict[str, Small], tmp_path: Path) -> None:
    stages["sft"].execute(tmp_path / "sft", epochs=6, optimiser={"lr": 2e-2})
    losses = [line["loss"] for line in metrics(tmp_path / "sft")]
    assert len(losses) == 6 * 4
    assert sum(losses[-4:]) / 4 < sum(losses[:4]) / 4 - 1
    model, words = load_model(tmp_path / "sft" / "model")
    assert model.shape.head == "logits"
    assert words.fingerprint == tokenizer().fingerprint


def test_a_chat_model_s_introduction_is_handed_down(stages: dict[str, Small], tmp_path: Path) -> None:
    stages["sft"].execute(tmp_path / "drawn", epochs=1)
    drawn = read_introduction(tmp_path / "drawn" / "model")
    asked = {d.dialog[0].content for path in stages["sft"].inputs["data"] for d in read_demonstrations(path)}
    assert drawn.about == ""
    assert 0 < len(drawn.ask) <= 3
    assert set(drawn.ask) <= asked
    stages["sft"].execute(tmp_path / "first", epochs=1, about="owls", ask=["Who sings?"])
    given(stages["sft"], model=tmp_path / "first" / "model").execute(tmp_path / "second", epochs=1, about="hares")
    given(stages["dpo"], model=tmp_path / "second" / "model").execute(tmp_path / "third")
    assert read_introduction(tmp_path / "third" / "model") == Introduction("hares", ("Who sings?",))


def test_dialogues_that_do_not_fit_are_dropped_and_counted(
    stages: dict[str, Small], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    owl, long = Message("user", "owl"), Message("assistant", LONG)
    demos = [Demonstration((owl, Message("assistant", "hill"))), Demonstration((owl, long))]
    write_jsonl(tmp_path / "d.jsonl", map(to_dict, demos))
    small = given(stages["sft"], data=[tmp_path / "d.jsonl"])
    small.execute(tmp_path / "sft", epochs=1)
    assert metrics(tmp_path / "sft")[0]["tokens"] < 96
    write_jsonl(tmp_path / "d.jsonl", [to_dict(demos[1])])
    with pytest.raises(BadInput, match="no dialogue fits in 96 tokens"):
        small.execute(tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("kind", ["reward", "dpo", "kto"])
def test_stages_say_what_was_left_out_of_their_pairs(
    stages: dict[str, Small], tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    rows = comparisons(24)
    write_jsonl(tmp_path / "pairs.jsonl", map(to_dict, [*rows, *(replace(c, rejected=c.chosen) for c in rows[:5])]))
    small = given(stages[kind], data=[tmp_path / "pairs.jsonl"])
    config = parse_config(load_stage(kind).config, dict(small.settings))
    execute(kind, config, small.inputs, tmp_path / "whole", name=kind, seed=1)
    assert capsys.readouterr().err.count("pairs.jsonl: left out: 5 × the answers are the same") == 1
    stages[kind].execute(tmp_path / "clean")
    models = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("whole", "clean")]
    assert models[0] == models[1]


def test_only_the_last_turn_counts_where_a_demonstration_says_so(stages: dict[str, Small], tmp_path: Path) -> None:
    """Ghost Attention's mask rule: an earlier answer that is not trained on stays unlikely."""
    user, first, last = Message("user", "owl"), Message("assistant", "hare hare"), Message("assistant", "rain")
    learned = {}
    for train in ("all", "last"):
        write_jsonl(tmp_path / "d.jsonl", [to_dict(Demonstration((user, first, user, last), train))])  # type: ignore[arg-type]
        small = given(stages["sft"], data=[tmp_path / "d.jsonl"])
        small.execute(tmp_path / train, epochs=25, optimiser={"lr": 1e-2})
        model, words = load_model(tmp_path / train / "model")
        earlier = answer_tokens((user,), "hare hare", words)
        whole = answer_tokens((user, first, user), "rain", words)
        learned[train] = [-float(NextToken().loss(Role(model), batch_of([s]))[0].detach()) for s in (earlier, whole)]
    assert learned["all"][0] > learned["last"][0] + 5  # nats
    assert min(learned["all"][1], learned["last"][1]) > -8


def corpus(path: Path, count: int, seed: int) -> list[str]:
    draw = np.random.default_rng(seed)
    texts = [" ".join(draw.choice([f"{seed}w{i}" for i in range(200)], 25)) for _ in range(count)]
    write_jsonl(path, ({"text": text} for text in texts))
    return texts


def test_sources_are_weighted_and_duplicates_and_held_out_text_are_gone(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.jsonl" for i in range(3)]
    a, b, held = (corpus(path, 10, i) for i, path in enumerate(paths))
    write_jsonl(paths[0], ({"text": t} for t in [*a, *a[:3], held[0] + "!"]))
    write_jsonl(paths[1], ({"text": t} for t in [*b, a[5]]))
    config = pretrain.Config(weights=(2.0, 0.5))
    inputs = {"data": paths[:2], "heldout": [paths[2]]}
    order = mix(config, inputs, tmp_path / "mix")
    text_of = {ids_of(text): text for text in [*a, *b, *held]}
    file = TokenFile(tmp_path / "mix", tokenizer().vocab_size)
    lengths = file.lengths()
    mixed = Counter(text_of[tuple(file.document(i, 0, lengths[i]).tolist())] for i in order)
    assert {text: n for text, n in mixed.items() if text in a} == dict.fromkeys(a, 2)
    assert sum(n for text, n in mixed.items() if text in b) == 5
    assert set(mixed) <= {*a, *b}
    assert mix(config, inputs, tmp_path / "again").tolist() == order.tolist()
    with pytest.raises(BadInput, match="weights: 1 weights for 2 sources"):
        mix(pretrain.Config(weights=(1.0,)), inputs, tmp_path / "wrong")
    with pytest.raises(BadInput, match="no document is left"):
        mix(pretrain.Config(), {"data": paths[:1], "heldout": paths[:1]}, tmp_path / "none")


def mix(config: pretrain.Config, inputs: dict[str, list[Path]], directory: Path) -> np.ndarray:
    directory.mkdir()
    run = Run(directory / "run", name="pretrain", quiet=True, seed=1)
    return pretrain.prepare(config, inputs, tokenizer(), run, directory)


def ids_of(text: str) -> tuple[int, ...]:
    return (tokenizer().bos, *tokenizer().encode(text), tokenizer().eos)


def test_rows_are_documents_end_to_end(tmp_path: Path) -> None:
    texts = ["owl", "the hare", "rain falls on the green hill"]
    write_token_file(tmp_path, map(ids_of, texts), tokenizer().vocab_size)
    order = np.array([2, 0, 1, 0, 0, 2])
    rows = PackedRows(TokenFile(tmp_path, tokenizer().vocab_size), order, 8)
    stream = [id for i in order for id in ids_of(texts[i])]
    assert [t for i in range(len(rows)) for t in rows[i].tokens] == stream[: len(stream) // 8 * 8]
    assert all(rows[i].mask == [False] + [True] * 7 for i in range(len(rows)))
    assert rows.tokens == len(stream)
    with pytest.raises(IndexError):
        rows[len(rows)]


@pytest.mark.parametrize(("vocab", "size"), [(1 << 16, 2), ((1 << 16) + 1, 4)])
def test_a_token_takes_two_bytes_while_the_vocabulary_fits(tmp_path: Path, vocab: int, size: int) -> None:
    documents = [[0, vocab - 1], [], [7, 8, 9]]
    write_token_file(tmp_path, documents, vocab)
    assert (tmp_path / "tokens.bin").stat().st_size == 5 * size
    file = TokenFile(tmp_path, vocab)
    assert [file.document(i, 0, n).tolist() for i, n in enumerate(file.lengths())] == documents
    assert len(TokenFile(empty(tmp_path / "empty", vocab), vocab)) == 0


def empty(directory: Path, vocab: int) -> Path:
    directory.mkdir()
    write_token_file(directory, [], vocab)
    return directory


def test_a_corpus_shorter_than_a_row_is_no_corpus(stages: dict[str, Small], tmp_path: Path) -> None:
    write_jsonl(tmp_path / "c.jsonl", [{"text": "."}])
    small = given(stages["pretrain"], data=[tmp_path / "c.jsonl"])
    with pytest.raises(BadInput, match=r"the corpus has \d tokens, a row 64"):
        small.execute(tmp_path / "p")


def test_the_token_file_is_made_once(stages: dict[str, Small], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AYNI_FAILPOINT", "save-end")  # the first checkpoint of the model
    with pytest.raises(Killed):
        stages["pretrain"].execute(tmp_path / "p", checkpoint_every=1)
    monkeypatch.delenv("AYNI_FAILPOINT")
    made = tmp_path / "p" / "checkpoints" / "tokens" / "tokens.bin"
    assert made.is_file()
    monkeypatch.setattr(pretrain, "prepare", None)
    stages["pretrain"].execute(tmp_path / "p", checkpoint_every=1)
    assert not made.exists()


def test_pretraining_takes_a_number_of_tokens(stages: dict[str, Small], tmp_path: Path) -> None:
    stages["pretrain"].execute(tmp_path / "p", tokens=64 * 6 * 4)
    assert sum(line["tokens"] for line in metrics(tmp_path / "p")) == pytest.approx(64 * 6 * 4, rel=0.35)


def test_a_reward_model_learns_the_words_that_were_chosen(stages: dict[str, Small], tmp_path: Path) -> None:
    small = given(stages["reward"], heldout=None)
    settings = {"epochs": 12, "task": "helpfulness", "heldout_share": 0.25, "batch_size": 4, "other_share": 0.0}
    small.execute(tmp_path / "rm", **settings, optimiser={"lr": 1e-2})
    history = metrics(tmp_path / "rm")
    assert history[-1]["loss"] < 0.3 < history[0]["loss"]
    (row,) = [
        r for r in json.loads((tmp_path / "rm" / "results.json").read_text())["results"] if r["metric"] == "accuracy"
    ]
    assert row["n"] == 4  # a quarter of 16 comparisons of this task
    reward_model = load_reward(tmp_path / "rm" / "model")
    asked = prompts(8, seed=9)
    with_owl, without = (reward_model.score_answers(asked, [a] * 8) for a in ("hill owl", "hill"))
    assert (with_owl > without).all()


def test_held_out_comparisons_that_do_not_fit_are_left_out(stages: dict[str, Small], tmp_path: Path) -> None:
    pairs = comparisons(6)
    write_jsonl(tmp_path / "held.jsonl", map(to_dict, [*pairs, replace(pairs[0], chosen=LONG)]))
    small = given(stages["reward"], heldout=[tmp_path / "held.jsonl"])
    small.execute(tmp_path / "rm", epochs=0.5)
    rows = json.loads((tmp_path / "rm" / "results.json").read_text())["results"]
    assert next(r["n"] for r in rows if r["metric"] == "accuracy") == 2
    # the other task's: the same model, on the other axis
    assert next((r["axis"], r["n"]) for r in rows if r["metric"] == "accuracy_elsewhere") == ("helpfulness", 4)
    write_jsonl(tmp_path / "long.jsonl", [to_dict(replace(pairs[0], chosen=LONG))])
    with pytest.raises(BadInput, match="no pair fits the context of 96 tokens"):
        given(stages["reward"], data=[tmp_path / "long.jsonl"]).execute(tmp_path / "none")
    write_jsonl(tmp_path / "other.jsonl", [to_dict(pairs[1])])
    with pytest.raises(BadInput, match="no comparison of the task safety"):
        given(small, data=[tmp_path / "other.jsonl"]).execute(tmp_path / "none")


def test_a_held_out_prompt_is_held_out_of_both_tasks(
    stages: dict[str, Small], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Safety prompts are judged by both guidelines: the other judgement of the same answers would give them away."""
    pairs = [replace(c, task=task) for c in comparisons(20) for task in ("helpfulness", "safety")]
    write_jsonl(tmp_path / "pairs.jsonl", map(to_dict, pairs))
    seen: list[Pair] = []
    held: list[Comparison] = []
    heldout_results = reward.heldout_results

    def measured(chosen: Any, rejected: Any, heldout: list[Comparison], **where: Any) -> Any:
        held.extend(heldout)
        return heldout_results(chosen, rejected, heldout, **where)

    monkeypatch.setattr(reward.Config, "fit", lambda self, model, items, objective, run, **more: seen.extend(items))
    monkeypatch.setattr(reward, "heldout_results", measured)
    small = given(stages["reward"], data=[tmp_path / "pairs.jsonl"], heldout=None)
    small.execute(tmp_path / "rm", heldout_share=0.3, other_share=0.5)
    apart = {tuple(render_prompt(c.prompt.dialog, tokenizer())) for c in held}
    assert held
    assert len(seen) > len(held)
    for sequence in (s for p in seen for s in (p.chosen, p.rejected)):
        assert tuple(sequence.tokens[: sequence.mask.index(True)]) not in apart


def test_comparisons_of_held_out_prompts_are_not_trained_on(
    stages: dict[str, Small], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = [replace(c, task="safety") for c in comparisons(20)]
    write_jsonl(tmp_path / "pairs.jsonl", map(to_dict, pairs))
    write_jsonl(tmp_path / "held.jsonl", map(to_dict, pairs[:4]))
    seen: list[Pair] = []
    monkeypatch.setattr(reward.Config, "fit", lambda self, model, items, objective, run, **more: seen.extend(items))
    given(stages["reward"], data=[tmp_path / "pairs.jsonl"], heldout=[tmp_path / "held.jsonl"]).execute(tmp_path / "rm")
    apart = {c.prompt.dialog for c in pairs[:4]}
    assert len(seen) == sum(c.prompt.dialog not in apart for c in pairs) < 20
    same = given(stages["reward"], data=[tmp_path / "held.jsonl"], heldout=[tmp_path / "held.jsonl"])
    with pytest.raises(BadInput, match="every prompt to train on is held out"):
        same.execute(tmp_path / "none")


def test_a_reward_model_is_measured_against_an_earlier_one(stages: dict[str, Small], tmp_path: Path) -> None:
    small = stages["reward"]
    small.execute(tmp_path / "first", epochs=0.1)
    later = given(small, against=tmp_path / "first" / "model")
    later.execute(tmp_path / "later", epochs=20, optimiser={"lr": 2e-2})
    rows = {r["metric"]: r for r in json.loads((tmp_path / "later" / "results.json").read_text())["results"]}
    before = {r["metric"]: r for r in json.loads((tmp_path / "first" / "results.json").read_text())["results"]}
    gain = rows["accuracy_gain"]
    assert gain["value"] == pytest.approx(rows["accuracy"]["value"] - before["accuracy"]["value"])
    assert gain["interval"][0] <= gain["value"] <= gain["interval"][1]
    assert (gain["model"], gain["against"], gain["method"]) == ("reward", "first", "wilson-ties")
    assert sum(r["n"] for m, r in rows.items() if m.startswith("accuracy_gain:")) == gain["n"]


def test_the_best_of_several_answers_is_what_the_reward_model_prefers(stages: dict[str, Small], tmp_path: Path) -> None:
    small = stages["reject"].inputs
    inputs = {"model": small["model"], "against": small["model"], "prompts": small["prompts"]}
    judged = {**inputs, "judge": [small["reward"]]}
    settings = {"max_tokens": 12, "dtype": "fp32", "kl_prompts": 4}
    best = Small("evaluate", settings, {**judged, "reward": small["reward"]})
    best.execute(tmp_path / "best", best_of=6)
    rows = json.loads((tmp_path / "best" / "results.json").read_text())["results"]
    assert {r["model"] for r in rows} == {"policy best of 6", "policy"}
    scores = {r["model"]: r["value"] for r in rows if (r["metric"], r["axis"]) == ("score", "helpfulness")}
    assert scores["policy best of 6"] > scores["policy"]
    assert not [r for r in rows if r["metric"] == "kl"]
    (kl,) = [r for r in rows if r["metric"] == "best_of_kl"]
    assert 0 < kl["interval"][0] <= kl["value"] <= best_of_bound(6)
    drawn = {r["axis"]: r["value"] for r in rows if r["metric"] == "tokens_drawn"}
    assert all(6 <= value <= 6 * 12 for value in drawn.values())
    for wrong, settings in ((judged, {"best_of": 2}), ({**judged, "reward": small["reward"]}, {})):
        with pytest.raises(BadInput, match="best_of and a reward model belong together"):
            Small("evaluate", best.settings, wrong).execute(tmp_path / "none", **settings)


@pytest.mark.parametrize("how", ["beam", "tree"])
@pytest.mark.parametrize("critic", [False, True])
def test_what_a_search_finds_is_judged_with_what_it_cost(
    how: str, critic: bool, stages: dict[str, Small], tmp_path: Path
) -> None:
    small = stages["reject"].inputs
    inputs = {"model": small["model"], "against": small["model"], "prompts": small["prompts"]}
    inputs |= {"judge": [small["reward"]], "reward": small["reward"]} | (
        {"critic": small["reward_safety"]} if critic else {}
    )
    settings = {"max_tokens": 12, "dtype": "fp32", "search": {"how": how, "step": 4, "budget": 900, "expand": 3}}
    Small("evaluate", settings, inputs).execute(tmp_path / "found")
    rows = read_results(tmp_path / "found" / "results.json")
    name = {"beam": "policy beam 2×3", "tree": "policy tree 3 ways, 900 tokens"}[how] + " by critic" * critic
    assert {row.model for row in rows} == {name, "policy"}
    ours = {row.metric: row for row in rows if (row.model, row.axis) == (name, "helpfulness")}
    theirs = {row.metric: row for row in rows if (row.model, row.axis) == ("policy", "helpfulness")}
    assert ours["chosen_reward"].value == pytest.approx(ours["score"].value, abs=1e-4)  # the same model judges
    assert (ours["score"].value or 0) > (theirs["score"].value or 0)
    for metric in ("chosen_reward", "tokens_drawn", "tokens_spent"):
        assert ours[metric].interval is not None
        assert metric not in theirs
    assert (ours["tokens_spent"].value or 0) > (ours["tokens_drawn"].value or 0) > (ours["answer_tokens"].value or 0)
    assert not {"kl", "best_of_kl"} & {row.metric for row in rows}


def test_pairs_carry_the_ratings_margin_and_the_safety_labels() -> None:
    config = reward.Config(margin="large")
    prompt = prompts(1)[0]
    rated = Comparison(prompt, "owl", "hill", "safety", "better", safety="chosen_safe")
    pair = reward.pair_of(rated, tokenizer(), config)
    assert (pair.margin, pair.safe) == (MARGINS["large"]["better"], (1, 0))
    assert reward.pair_of(replace(rated, margin=0.25), tokenizer(), config).margin == 0.25
    assert reward.pair_of(replace(rated, rating=None, safety=None), tokenizer(), config).margin == 0
    assert reward.pair_of(replace(rated, safety="both_unsafe"), tokenizer(), config).safe == (0, 0)
    assert reward.pair_of(replace(rated, safety="both_safe"), tokenizer(), config).safe == (1, 1)
    assert pair.chosen.tokens[-1] == tokenizer().eos
    assert pair.chosen.tokens != pair.rejected.tokens


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_dpo_starts_at_its_reference(dtype: str, stages: dict[str, Small], tmp_path: Path) -> None:
    """In any dtype: the reference is computed as the policy is."""
    stages["dpo"].execute(tmp_path / "dpo", dtype=dtype, epochs=2)
    history = metrics(tmp_path / "dpo")
    tolerance = 1e-5 if dtype == "fp32" else 1e-3  # (bf16: kernels may round by the micro-batch's shape)
    assert history[0]["loss"] == pytest.approx(math.log(2), abs=tolerance)
    assert history[0]["lead"] == pytest.approx(0, abs=2 * tolerance)
    assert history[-1]["lead"] > 0.5
    assert history[-1]["accuracy"] == 1


def test_ipo_and_smoothing_are_settings(stages: dict[str, Small], tmp_path: Path) -> None:
    stages["dpo"].execute(tmp_path / "ipo", ipo=True)
    assert metrics(tmp_path / "ipo")[0]["loss"] == pytest.approx(25, rel=1e-3)
    stages["dpo"].execute(tmp_path / "smooth", smoothing=0.3)
    assert metrics(tmp_path / "smooth")[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    plain = metrics(tmp_path / "smooth")[-1]["lead"]
    stages["dpo"].execute(tmp_path / "dpo")
    assert plain < metrics(tmp_path / "dpo")[-1]["lead"]  # doubt holds back


def test_kto_parts_the_liked_from_the_others(stages: dict[str, Small], tmp_path: Path) -> None:
    stages["kto"].execute(tmp_path / "kto", epochs=4)
    history = metrics(tmp_path / "kto")
    assert history[0]["loss"] == pytest.approx(0.5, abs=1e-5)  # at the reference nothing is better or worse
    assert history[0]["reference_point"] == pytest.approx(0, abs=1e-4)
    assert history[-1]["lead_up"] - history[-1]["lead_down"] > 1
    assert history[-1]["loss"] < 0.45


def test_kto_reads_references_of_what_it_learns_from_alone(stages: dict[str, Small], tmp_path: Path) -> None:
    stages["kto"].execute(tmp_path / "whole", epochs=1)
    stages["kto"].execute(tmp_path / "half", epochs=0.5)
    whole, half = (from_dict(Compute, read_object(tmp_path / name / COMPUTE)) for name in ("whole", "half"))
    assert half.forward < 0.65 * whole.forward  # the references alone are half of it
    assert half.backward < 0.65 * whole.backward


def test_kto_reads_thumbs_and_scores(stages: dict[str, Small], tmp_path: Path) -> None:
    def rows(**worth: Any) -> Path:
        texts = ["owl sings", "hill", "a green owl", "rain falls"]
        lines = [
            {"prompt": to_dict(prompt), "response": text, **{key: values[i % 2] for key, values in worth.items()}}
            for i, (prompt, text) in enumerate(zip(prompts(4), texts, strict=True))
        ]
        write_jsonl(tmp_path / "judged.jsonl", lines)
        return tmp_path / "judged.jsonl"

    model = stages["kto"].inputs["model"]
    thumbs = Small(
        "kto", {**stages["kto"].settings, "batch_size": 4}, {"model": model, "data": [rows(label=("up", "down"))]}
    )
    thumbs.execute(tmp_path / "thumbs")
    scores = Small("kto", thumbs.settings, {"model": model, "data": [rows(score=(4.0, 1.0))]})
    with pytest.raises(BadInput, match="liked_from: the answers have scores; say from which score on"):
        scores.execute(tmp_path / "scores")
    scores.execute(tmp_path / "scores", liked_from=3.0)
    assert metrics(tmp_path / "scores")[-1]["lead_up"] == metrics(tmp_path / "thumbs")[-1]["lead_up"]
    with pytest.raises(BadInput, match="every answer is judged alike"):
        scores.execute(tmp_path / "alike", liked_from=0.0)


@pytest.mark.parametrize("kind", ["sft", "reward", "dpo", "kto", "rrhf"])
def test_every_stage_that_fits_can_train_an_adapter(kind: str, stages: dict[str, Small], tmp_path: Path) -> None:
    """It leaves PEFT's files, moves nothing but the adapter, and goes wherever a model directory goes."""
    stages[kind].execute(tmp_path / kind, lora={"rank": 4})
    left = {path.name for path in (tmp_path / kind / "model").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "ayni.json"} <= left
    assert "model.safetensors" not in left
    model, _ = load_model(tmp_path / kind / "model")
    assert adapter_of(model) == Lora(rank=4)
    if kind != "reward":
        again = Small(kind, stages[kind].settings, {**stages[kind].inputs, "model": tmp_path / kind / "model"})
        again.execute(tmp_path / "again", lora={"rank": 4})
        assert metrics(tmp_path / "again")[0]["norm"] != metrics(tmp_path / kind)[0]["norm"]


def test_rrhf_agrees_with_the_reward_more_and_more(stages: dict[str, Small], tmp_path: Path) -> None:
    stages["rrhf"].execute(tmp_path / "rrhf", epochs=10, optimiser={"lr": 1e-2})
    history = metrics(tmp_path / "rrhf")
    assert history[-1]["agreement"] > history[0]["agreement"]
    assert history[-1]["loss"] < history[0]["loss"] - 1
    assert [len(group) for group in read_groups(tmp_path / "rrhf" / "samples.jsonl")] == [3] * 12


def groups_fitted(stage: Small, directory: Path, monkeypatch: pytest.MonkeyPatch, **changed: Any) -> list[Group]:
    """What an rrhf stage ranks."""
    seen: list[Group] = []
    monkeypatch.setattr(rrhf.Config, "fit", lambda self, model, items, objective, run, **more: seen.extend(items))
    stage.execute(directory, **changed)
    return seen


def test_the_data_s_own_answers_are_candidates_like_the_sampled_ones(
    stages: dict[str, Small], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chosen and rejected stand last in each group, and are scored by the reward model, not by who chose."""
    rows = comparisons(10)
    more = replace(rows[3], chosen="hill", rejected="rain")  # the same prompt again
    long = replace(rows[0], prompt=prompts(1, seed=9)[0], chosen=LONG)
    write_jsonl(tmp_path / "pairs.jsonl", map(to_dict, [*rows, more, long]))
    small = given(stages["pro"], data=[tmp_path / "pairs.jsonl"])
    groups = groups_fitted(small, tmp_path / "pro", monkeypatch)
    drawn = {group[0].prompt_id: group for group in read_groups(tmp_path / "pro" / "samples.jsonl")}
    assert len(groups) == len(drawn) == 10
    judge = load_reward(small.inputs["reward"])  # type: ignore[arg-type]
    for group in groups:
        asked = group.sequences[-1].tokens
        (c,) = [c for c in rows if answer_tokens(c.prompt.dialog, c.rejected, tokenizer()).tokens == asked]
        assert group.sequences[-2] == answer_tokens(c.prompt.dialog, c.chosen, tokenizer())
        assert [s.tokens for s in group.sequences[:3]] == [[*s.prompt_tokens, *s.tokens] for s in drawn[c.prompt.id]]
        own = judge.score_answers([c.prompt] * 2, [c.chosen, c.rejected]).tolist()
        assert list(group.rewards[-2:]) == pytest.approx(own, abs=1e-5)


def test_rrhf_takes_prompts_or_comparisons(stages: dict[str, Small], tmp_path: Path) -> None:
    asked = stages["rrhf"].inputs["prompts"]
    for wrong in (given(stages["pro"], prompts=asked), given(stages["pro"], data=None)):
        with pytest.raises(BadInput, match="prompts: candidates are for prompts, or for those of comparisons"):
            wrong.execute(tmp_path / "none")
    with pytest.raises(BadInput, match="n: a single candidate has no rank"):
        stages["rrhf"].execute(tmp_path / "none", n=1)
    assert not (tmp_path / "none").exists()
    clash = [replace(c, prompt=replace(c.prompt, id="p")) for c in comparisons(2)]
    write_jsonl(tmp_path / "clash.jsonl", map(to_dict, clash))
    with pytest.raises(BadInput, match=r"clash.jsonl: id: 'p' is the id of another prompt too"):
        given(stages["pro"], data=[tmp_path / "clash.jsonl"]).execute(tmp_path / "none")


@pytest.mark.parametrize(("settings", "imitation"), [({}, 1.0), ({"imitation": 3}, 3), ({"loss": "pro"}, 0.05 * 5**2)])
def test_the_best_answer_is_imitated_with_the_weight_of_the_paper(settings: dict[str, Any], imitation: float) -> None:
    assert rrhf.objective(rrhf.Config(**settings), 6).imitation == pytest.approx(imitation)


def test_pro_agrees_with_the_reward_more_and_more(stages: dict[str, Small], tmp_path: Path) -> None:
    stages["pro"].execute(tmp_path / "pro", epochs=10, optimiser={"lr": 1e-2})
    history = metrics(tmp_path / "pro")
    assert history[-1]["agreement"] > history[0]["agreement"]
    assert history[-1]["loss"] < history[0]["loss"] - 1
    samples = [sample for group in read_groups(tmp_path / "pro" / "samples.jsonl") for sample in group]
    assert {sample.temperature for sample in samples} == {0}


def test_fine_tuning_on_the_chosen_answers(
    stages: dict[str, Small], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What DPO starts from: each chosen answer once, of the guideline that DPO learns from."""
    rows = comparisons(6)
    twice = replace(rows[1], rejected="rain falls")
    other = replace(rows[1], task="safety", chosen=rows[1].rejected, rejected=rows[1].chosen)
    write_jsonl(tmp_path / "pairs.jsonl", map(to_dict, [*rows, twice, other]))
    seen: list[Any] = []
    monkeypatch.setattr(sft.Config, "fit", lambda self, model, items, objective, run, **more: seen.extend(items))
    small = given(stages["sft"], data=None, chosen=[tmp_path / "pairs.jsonl"])
    small.execute(tmp_path / "sft")
    assert seen == [answer_tokens(c.prompt.dialog, c.chosen, tokenizer()) for c in rows if c.task == "helpfulness"]
    with pytest.raises(BadInput, match="data: nothing to learn from; give data, or comparisons as chosen"):
        given(stages["sft"], data=None).execute(tmp_path / "none")


# Making records


def best_of(small: Small, directory: Path) -> tuple[dict[str, str], list[Any]]:
    """The kept answer of every prompt, and the groups it was chosen from."""
    kept = {d["source"].partition(":")[2]: d["dialog"][-1]["content"] for d in lines_of(directory / "records.jsonl")}
    return kept, read_groups(directory / "samples.jsonl")


def test_rejection_sampling_keeps_the_best_finished_answer(stages: dict[str, Small], tmp_path: Path) -> None:
    small = given(stages["reject"], reward_safety=None)
    small.execute(tmp_path / "rs", n=6)
    kept, groups = best_of(small, tmp_path / "rs")
    judge = load_reward(small.inputs["reward"])  # type: ignore[arg-type]
    asked = {p.id: p for p in read_prompts(small.inputs["prompts"][0])}  # type: ignore[index]
    assert len(groups) == 12
    cut_off = 0
    for group in groups:
        scores = judge.score_samples([asked[group[0].prompt_id]], [group], tokenizer()).tolist()
        finished = [(score, s.text) for score, s in zip(scores, group, strict=True) if s.finished == "stop"]
        cut_off += len(group) - len(finished)
        assert kept.get(group[0].prompt_id) == (max(finished)[1] if finished else None)
    assert cut_off > 0
    demonstrations = read_demonstrations(tmp_path / "rs" / "records.jsonl")
    assert {d.train for d in demonstrations} == {"last"}
    curve = [line for line in metrics(tmp_path / "rs") if "best" in line]
    assert [line["n"] for line in curve] == [1, 2, 3, 4, 5, 6]
    assert all(a["best"] <= b["best"] for a, b in pairwise(curve))


def test_cut_off_answers_may_be_kept_on_request(stages: dict[str, Small], tmp_path: Path) -> None:
    stages["reject"].execute(tmp_path / "rs", finished_only=False, max_tokens=3)
    kept, groups = best_of(stages["reject"], tmp_path / "rs")
    assert len(kept) == len(groups) == 12
    with pytest.raises(BadInput, match="max_tokens: no answer"):
        stages["reject"].execute(tmp_path / "none", max_tokens=1, limit=1, n=1)


@pytest.mark.parametrize("keep", ["best", "random"])
def test_an_empty_answer_is_never_kept_however_good(keep: str, tmp_path: Path) -> None:
    """A stage that trains on the records would refuse it, and rightly."""
    asked = prompts(2)
    answers = [["", "rain", " "], ["", " "]]
    groups = [
        [Sample(p.id, "helpfulness", (1,), (2,), (-1.0,), text, "stop") for text in texts]
        for p, texts in zip(asked, answers, strict=True)
    ]
    run, scores = Run(tmp_path, name="reject", quiet=True), torch.tensor([9.0, 1, 9, 9, 9])
    kept = reject.select(asked, groups, scores, reject.Config(keep=keep), run)  # type: ignore[arg-type]
    assert [d.dialog[-1].content for d in kept] == ["rain"]


def test_the_curve_is_of_this_rounds_answers_and_the_pool_of_all(tmp_path: Path) -> None:
    """Earlier rounds' answers stand first in the pool, and were another model's; a prompt may have nothing else."""
    old, new, both = prompts(3)
    scores = {old: [50.0, 60.0], new: [1.0, 3.0], both: [9.0, 7.0, 4.0, 2.0]}

    def sample(prompt: Prompt, value: float) -> Sample:
        return Sample(prompt.id, "helpfulness", (1,), (2,) * int(value), (-1.0,), f"said {value}", "stop")

    groups = [[sample(p, value) for value in values] for p, values in scores.items()]
    flat = torch.tensor([value for values in scores.values() for value in values])
    run, config = Run(tmp_path, name="reject", quiet=True), reject.Config(n=2)
    kept = reject.select([*scores], groups, flat, config, run)
    rows = reject.gained([*scores], groups, Scores(flat, -flat, flat), config, run, {new.id, both.id}, model="m")
    assert [(row.metric, row.value, row.n, row.model) for row in rows[:3]] == [
        *[("best:1", 2.5, 2, "m"), ("best:2", 3.5, 2, "m"), ("best_added:2", 1.0, 2, "m")]
    ]
    assert [d.dialog[-1].content for d in kept] == ["said 60.0", "said 3.0", "said 9.0"]
    *curve, last = metrics(tmp_path)
    assert [(line["n"], line["best"], line["median"]) for line in curve] == [(1, 2.5, 2.5), (2, 3.5, 2.5)]
    assert last["pool_best"] == (3 + 9) / 2
    assert (last["helpfulness"], last["safety"], last["length"]) == (2.5, -2.5, 2.5)


def test_the_temperature_is_that_of_the_highest_best_of_n(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The judge likes what was drawn at 1.5; of cut answers it does, too, and they win nothing."""
    asked, tried = prompts(8), []

    def drawn(engine: object, some: list[Prompt], t: float, config: object, run: Run, name: str) -> list[list[Sample]]:
        tried.append((name, [p.id for p in some]))
        finished = "length" if t == 2 else "stop"
        return [[Sample(p.id, p.task, (1,), (2,), (-1.0,), "a", finished, temperature=t)] * 2 for p in some]  # type: ignore[arg-type]

    def judge(some: list[Prompt], groups: list[list[Sample]]) -> Scores:
        scores = torch.tensor([s.temperature + (i % 2) for group in groups for i, s in enumerate(group)])
        return Scores(scores, None, scores)

    monkeypatch.setattr(reject, "drawn", drawn)
    run, config = (
        Run(tmp_path, name="reject", quiet=True),
        reject.Config(n=2, temperatures=(1, 1.5, 2), tried_prompts=6),
    )
    best, rows = reject.best_temperature(policy(), asked, judge, config, run)  # type: ignore[arg-type]
    assert best == 1.5
    assert [name for name, _ in tried] == ["tried-1", "tried-1.5", "tried-2"]
    assert tried[0][1] == tried[1][1]  # the same prompts
    assert len(tried[0][1]) == 6
    assert [(row.metric, row.value, row.n) for row in rows[:2]] == [("best_of_2:1", 2.0, 6), ("best_of_2:1.5", 2.5, 6)]
    assert (rows[3].metric, rows[3].value) == ("temperature_gain:1.5", 0.5)


def test_the_best_temperature_draws_the_rest(stages: dict[str, Small], tmp_path: Path) -> None:
    stages["reject"].execute(tmp_path / "tuned", temperatures=[0.5, 1.5], tried_prompts=2, n=2, finished_only=False)
    rows = read_results(tmp_path / "tuned" / "results.json")
    assert {row.model for row in rows} == {"policy"}
    assert {"best:2", "median:2", "best_added:2", "temperature_gain:1.5"} <= {row.metric for row in rows}
    chosen = {row.metric: row.value or 0 for row in rows if row.metric.startswith("best_of")}
    best = max(chosen, key=lambda metric: chosen[metric]).partition(":")[2]
    groups = read_groups(tmp_path / "tuned" / "samples.jsonl")
    assert {sample.temperature for group in groups for sample in group} == {float(best)}


def test_the_random_control_draws_the_same_samples_and_keeps_others(stages: dict[str, Small], tmp_path: Path) -> None:
    for keep in ("best", "random"):
        stages["reject"].execute(tmp_path / keep, keep=keep, n=6)
    (best, groups), (chance, same) = (best_of(stages["reject"], tmp_path / keep) for keep in ("best", "random"))
    assert groups == same
    assert best.keys() == chance.keys()
    assert any(best[id] != chance[id] for id in best)


def sample_rows(asked: list[Prompt], texts: list[list[str]]) -> list[list[Sample]]:
    return [
        [Sample(p.id, "helpfulness", (1,), (2,), (-1.0,), text, "length" if "…" in text else "stop") for text in said]
        for p, said in zip(asked, texts, strict=True)
    ]


def test_raft_ranks_by_the_reward_less_what_it_has_moved(tmp_path: Path) -> None:
    """r − β log(π/π_0) by hand, and the best of all answers, whosever they are."""
    asked = prompts(3)
    groups = sample_rows(asked, [["a", "b"], ["c", "d…", "e"], ["f"]])
    reward, moved = torch.tensor([2.0, 1, 5, 9, 4, 3]), torch.tensor([4.0, -2, 8, 0, 0, -4])
    drawn = {p.id for p in asked}

    def kept(**settings: Any) -> list[str]:
        run, config = Run(tmp_path, name="reject", quiet=True), reject.Config(n=1, **settings)
        found = reject.select(asked, groups, reward - config.beta * moved, config, run)
        reject.gained(asked, groups, Scores(reward, None, reward), config, run, drawn, moved if config.beta else None)
        return [d.dialog[-1].content for d in found]

    assert kept() == ["a", "c", "f"]
    # 0, 2 · 1, (9), 4 · 5
    assert kept(beta=0.5) == ["b", "e", "f"]
    assert metrics(tmp_path)[-1]["log_ratio"] == pytest.approx((-2 + 0 - 4) / 3)  # the last of each: n is 1
    # a third of six, cut ones out; in the order of the prompts
    assert kept(keep="quantile", quantile=1 / 3) == ["c", "e"]
    assert kept(keep="quantile", quantile=1 / 3, beta=0.5) == ["e", "f"]
    assert kept(keep="quantile", quantile=0.01) == ["c"]
    assert kept(keep="quantile", quantile=1.0) == ["a", "b", "c", "e", "f"]


def test_raft_measures_how_far_the_model_is_from_its_reference(stages: dict[str, Small], tmp_path: Path) -> None:
    small = stages["raft"]
    small.execute(tmp_path / "raft", keep="best", n=4)
    kept, groups = best_of(small, tmp_path / "raft")
    policy_, reference = (Role(load_model(small.inputs[name])[0]) for name in ("model", "reference"))  # type: ignore[arg-type]
    judge = load_reward(small.inputs["reward"])  # type: ignore[arg-type]
    asked = {p.id: p for p in read_prompts(small.inputs["prompts"][0])}  # type: ignore[index]
    moved = []
    for group in groups:
        rows = judge.score_samples([asked[group[0].prompt_id]], [group], tokenizer()).tolist()
        for k, sample in enumerate(group):
            batch = batch_of([sampled_sequence(sample)])
            ours, theirs = (float(role.logprobs(batch).detach().sum()) for role in (policy_, reference))
            moved.append(ours - theirs)
            rows[k] -= 0.1 * moved[-1]
        said = [s.finished == "stop" and bool(s.text.strip()) for s in group]
        finished = [(score, s.text) for score, s, whole in zip(rows, group, said, strict=True) if whole]
        assert kept.get(group[0].prompt_id) == (max(finished)[1] if finished else None)
    assert metrics(tmp_path / "raft")[-1]["log_ratio"] == pytest.approx(sum(moved) / len(moved), abs=1e-3)
    for wrong in (given(small, reference=None), given(stages["reject"], reference=small.inputs["reference"])):
        with pytest.raises(BadInput, match="beta: beta and a reference belong together"):
            wrong.execute(tmp_path / "none")


def test_the_second_round_of_raft_has_moved_from_the_first(stages: dict[str, Small], tmp_path: Path) -> None:
    """Each draws from the model of the round before; the reference stays where it began."""
    start, history = stages["raft"].inputs["model"], []
    model: Any = start
    for n in (1, 2):
        draws = given(stages["raft"], model=model, reference=start)
        draws.execute(tmp_path / f"samples{n}", n=8, quantile=0.3, max_tokens=12)
        history.append(metrics(tmp_path / f"samples{n}")[-1])
        tunes = given(stages["sft"], model=model, data=[tmp_path / f"samples{n}" / "records.jsonl"])
        tunes.execute(tmp_path / f"raft{n}", epochs=4, optimiser={"lr": 3e-3})
        model = tmp_path / f"raft{n}" / "model"
    assert history[0]["log_ratio"] == 0  # the first round's model is the reference
    assert history[1]["log_ratio"] > 0.1


def test_earlier_rounds_join_the_pool_and_are_judged_anew(stages: dict[str, Small], tmp_path: Path) -> None:
    small = stages["reject"]
    small.execute(tmp_path / "first", n=4)
    later = given(small, earlier=[tmp_path / "first" / "samples.jsonl"])
    later.execute(tmp_path / "second", n=2, limit=5, temperature=1.2)
    kept, groups = best_of(later, tmp_path / "second")
    assert len(groups) == 5
    assert len(kept) > 5  # prompts of the first round are there too
    first = best_of(small, tmp_path / "first")[0]
    drawn = {g[0].prompt_id for g in groups}
    assert all(kept[id] == answer for id, answer in first.items() if id not in drawn)

    write_jsonl(tmp_path / "few.jsonl", map(to_dict, prompts(2, seed=77)))
    stranger = given(later, prompts=[tmp_path / "few.jsonl"])
    with pytest.raises(BadInput, match="which is in no prompt file given"):
        stranger.execute(tmp_path / "third")


def test_collected_comparisons_are_held_out_by_prompt(stages: dict[str, Small], tmp_path: Path) -> None:
    stages["collect"].execute(tmp_path / "c")
    train, held = (read_comparisons(tmp_path / "c" / name) for name in ("records.jsonl", "heldout.jsonl"))
    assert train
    assert held
    assert not {c.prompt.id for c in train} & {c.prompt.id for c in held}
    assert all(c.rating is not None and c.chosen != c.rejected for c in train)
    assert {c.model_chosen for c in train} == {"policy"}
    assert metrics(tmp_path / "c")[0]["train"] == len(train)


@pytest.mark.parametrize("sources", [[""], ["village-"], ["village-x"], ["village-²"], ["village-7", "village-8"]])
def test_the_village_judges_its_own_prompts_only(stages: dict[str, Small], tmp_path: Path, sources: list[str]) -> None:
    asked = [Prompt(f"x{i}", (Message("user", "owl"),), source=source) for i, source in enumerate(sources)]
    write_jsonl(tmp_path / "p.jsonl", map(to_dict, asked))
    with pytest.raises(BadInput, match="the village's annotators judge the prompts of one village"):
        given(stages["collect"], prompts=[tmp_path / "p.jsonl"]).execute(tmp_path / "c")


def test_a_tokenizer_is_trained_on_at_most_so_many_characters(stages: dict[str, Small], tmp_path: Path) -> None:
    stages["tokenizer"].execute(tmp_path / "t", max_characters=1500)
    assert metrics(tmp_path / "t")[0]["characters"] == 1500
    words = load_tokenizer(tmp_path / "t" / "tokenizer")
    assert words.vocab_size == 300
    assert words.decode(words.encode("the owl 中")) == "the owl 中"


# All of them


@pytest.mark.parametrize("name", ["pretrain", "sft", "reward", "dpo", "rrhf", "collect", "reject", "ppo"])
def test_another_seed_gives_another_result(name: str, stages: dict[str, Small], tmp_path: Path) -> None:
    small = stages[name]
    config = parse_config(load_stage(small.kind).config, dict(small.settings))
    for seed in (1, 2):
        execute(small.kind, config, small.inputs, tmp_path / str(seed), name=name, seed=seed, quiet=True)
    first, second = (metrics(tmp_path / str(seed)) for seed in (1, 2))
    assert [line["step"] for line in first] == [line["step"] for line in second] or name == "ppo"
    assert first != second


def test_a_table_given_in_part_changes_that_part_of_its_default_alone() -> None:
    ppo = load_stage("ppo").config
    config: Any = parse_config(ppo, apply_sets({"optimiser": {"lr": 1e-4}}, ["critic_optimiser.lr=3e-4"]))
    assert config.optimiser == Optimiser(lr=1e-4, schedule="constant", warmup=0)
    assert config.critic_optimiser == Optimiser(lr=3e-4, schedule="constant", warmup=0)
    config = parse_config(ppo, {})
    assert config.optimiser == Optimiser(lr=1e-6, schedule="constant", warmup=0)
    with pytest.raises(BadInput, match=r"optimiser\.lear"):
        parse_config(ppo, {"optimiser": {"lear": 1}})


@pytest.mark.parametrize("count", [2, 3, 40])
def test_kto_s_mismatched_answers_are_to_other_prompts(count: int) -> None:
    """Two answers to each prompt, as comparisons give them."""
    dialogs = [(Message("user", str(i // 2)),) for i in range(2 * count)]
    found = mismatched(dialogs, np.random.default_rng(count))
    assert all(dialogs[i] != dialogs[j] for i, j in enumerate(found))
    with pytest.raises(BadInput, match="all answers are to one prompt"):
        mismatched(dialogs[:2], np.random.default_rng(0))
