"""What is held out is held out by conversation: no two turns of one ever fall on both sides of a split."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import transformers
from feedback_cases import Clock, judgement
from small_stages import Small, prepare

from ayni.config import parse_config
from ayni.errors import BadInput
from ayni.evaluate import perplexity
from ayni.evaluate.results import read_results
from ayni.feedback.entries import Item, Judged, PreferenceBatch
from ayni.feedback.pairs import Plan, pairs
from ayni.feedback.records_of import split
from ayni.feedback.store import Store, open_store
from ayni.files import read_jsonl, write_jsonl
from ayni.formats.reading import read_comparisons, read_demonstrations, read_prompts, read_prompts_of
from ayni.model.placement import Placement
from ayni.model.role import Role
from ayni.records import Comparison, Demonstration, Dialog, Message, Prompt, Sample, root_of, to_dict, under
from ayni.reward.model import load_reward
from ayni.rollout.engine import as_answers_to, rollout
from ayni.rollout.local import LocalEngine, load_engine
from ayni.rollout.sampling import Sampling
from ayni.run import Run
from ayni.runs.recipe import read_recipe
from ayni.seeds import rng, seed_of
from ayni.stages import evaluate, reward
from ayni.stages import tokenizer as tokenizer_stage
from ayni.text.chat import render
from ayni.village.village import village_of

RECIPES = Path(__file__).parent.parent / "recipes"


def said(*texts: str, system: str = "") -> Dialog:
    """A dialogue of these turns, the user's first."""
    turns = tuple(Message("assistant" if i % 2 else "user", text) for i, text in enumerate(texts))
    return (Message("system", system), *turns) if system else turns


def roots(comparisons: list[Comparison]) -> set[str]:
    return {root_of(c.prompt.dialog) for c in comparisons}


def test_turns_of_one_conversation_have_one_root() -> None:
    first = said("Who sings?\n  Tell me.")
    assert root_of(first) == "who sings tell me"
    assert root_of(said("Who sings? Tell me ", "The owl.", "And who dances?", system="Be brief.")) == root_of(first)
    assert root_of(said("?!")) != root_of(said("!"))
    assert root_of(said("And who dances?")) != root_of(first)


@pytest.mark.parametrize(
    "files",
    [("pandalm.json", "dpo_en_demo.json", "oasst_trees.jsonl"), ("hh_harmless.jsonl.gz",)],
)
def test_no_held_out_pair_of_real_data_shares_its_first_message_with_training(
    data_dir: Path, files: tuple[str, ...]
) -> None:
    everything = [c for name in files for c in read_comparisons(data_dir / "preferences" / name)]
    config = parse_config(reward.Config, {"heldout_share": 0.2})
    train, held = reward.split(everything, [], config, rng(1, "helpfulness", "split"))
    assert len(train) + len(held) == len(everything)
    assert 0.1 < len(held) / len(everything) < 0.3
    assert not roots(train) & roots(held)
    assert len({c.prompt.dialog for c in held}) > len(roots(held)) or len(files) == 1, "whole conversations"


def test_siblings_of_held_out_turns_are_not_trained_on() -> None:
    one, other = (
        Comparison(Prompt(str(i), dialog), "owl", "hill") for i, dialog in enumerate((said("a", "b", "c"), said("x")))
    )
    held = [replace(one, prompt=Prompt("h", said("a")))]
    config = parse_config(reward.Config, {})
    assert reward.split([one, other], held, config, rng(1)) == ([other], held)


def test_a_batch_is_held_out_by_conversation() -> None:
    dialogs = [said(f"question {i // 4}", *["and", "more"] * (i % 4)) for i in range(40)]
    prompts = [Prompt(f"p{i}", dialog) for i, dialog in enumerate(dialogs)]
    answers = [[[Sample(p.id, p.task, (1,), (5,), (-1.0,), text, "stop")] for p in prompts] for text in ("one", "two")]
    plan = Plan(1, "collect", "1", 0.0, heldout_share=0.3, overlap=1, overlap_share=1.0, max_tokens=8)
    asked = [each.item for each in pairs(prompts, *answers, plan)]
    held, train = ({root_of(item.prompt.dialog) for item in asked if item.heldout is side} for side in (True, False))
    assert (len(held), len(train)) == (3, 7)


def test_conversations_of_earlier_batches_are_not_gone_on_with(tmp_path: Path) -> None:
    small = prepare(tmp_path)["collect"]
    turns: dict[str, list[Prompt]] = {}
    for prompt in village_of(7).prompts("train"):
        turns.setdefault(root_of(prompt.dialog), []).append(prompt)
    siblings = [prompt for group in turns.values() if len(group) == 2 for prompt in group][:40]
    write_jsonl(tmp_path / "siblings.jsonl", map(to_dict, siblings))
    inputs = {**small.inputs, "prompts": [tmp_path / "siblings.jsonl"]}
    Small("collect", {**small.settings, "heldout_share": 0}, inputs).execute(tmp_path / "first", limit=5)
    inputs["earlier"] = [tmp_path / "first" / "samples-0.jsonl"]
    Small("collect", {**small.settings, "heldout_share": 0}, inputs).execute(tmp_path / "second")
    first, second = (roots(read_comparisons(tmp_path / name / "records.jsonl")) for name in ("first", "second"))
    assert first
    assert second
    assert not first & second


def judged(number: int, dialog: Dialog, *, heldout: bool) -> Judged:
    item = Item(f"i{number}", Prompt(f"i{number}", dialog), "owl", "hill", heldout=heldout)
    return Judged(number, judgement(f"s{number}", item.id, "ann"), item, "Ann")


def test_what_people_write_follows_the_pairs_that_began_alike() -> None:
    said_of = [(said("a"), True), (said("a", "b", "c"), False), (said("x"), False)]
    train, held = split(judged(number, dialog, heldout=out) for number, (dialog, out) in enumerate(said_of))
    assert (roots(train), roots(held), len(held)) == ({"x"}, {"a"}, 2)


@pytest.fixture
def store(new_address: Callable[[], str]) -> Iterator[Store]:
    with open_store(new_address(), clock=Clock()) as opened:
        yield opened


def write(store: Store, batch: str, beginning: str, turns: int = 3) -> list[bool]:
    """Somebody writes a dialogue; which of its turns are held out."""
    ann = store.enrol("Ann").id
    dialogue = store.start_dialogue(batch, ann)
    for turn in range(turns):
        prompt = store.next_prompt(dialogue.id, beginning if turn == 0 else f"And {turn}?")
        item = store.add_turn(dialogue.id, prompt, "an owl", "a hill")
        store.record(judgement(f"{dialogue.id}-{turn}", item.id, ann))
    return [turn.heldout for turn in store.dialogue(dialogue.id).turns]


def test_written_dialogues_are_held_out_whole_and_by_the_share_of_their_batch(store: Store) -> None:
    store.add_batch(PreferenceBatch("week-1", settings={"seed": 1, "heldout_share": 0.3}), [])
    store.add_batch(PreferenceBatch("week-2", settings={"seed": 1, "heldout_share": 0.3}), [])
    store.add_batch(PreferenceBatch("by-hand"), [])
    drawn = [write(store, "week-1", f"Question {number}") for number in range(40)]
    assert all(len(set(turns)) == 1 for turns in drawn)
    assert 4 <= sum(turns[0] for turns in drawn) <= 20
    held = drawn.index([True] * 3)
    assert write(store, "week-2", f"Question  {held} ") == [True] * 3, "who begins alike is held out alike"
    assert write(store, "by-hand", f"Question {held}") == [False] * 3
    train, test = split(store.current("week-1"))
    assert len(test) == 3 * sum(turns[0] for turns in drawn)
    assert not roots(train) & roots(test)


ALICE, BUTTERFLY = (" ".join(f"{name}{i}" for i in range(60)) for name in ("rabbit", "wing"))


def test_a_held_out_book_is_in_neither_the_tokenizer_nor_the_baseline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = prepare(tmp_path)["tokenizer"]
    write_jsonl(tmp_path / "all.jsonl", [{"text": ALICE + "!"}, {"text": BUTTERFLY}, {"text": ALICE + " the end"}])
    write_jsonl(tmp_path / "held.jsonl", [{"text": ALICE}])
    read: list[str] = []

    def trained(texts: list[str], vocab_size: int) -> Any:
        read.extend(texts)
        return tiny.tokenizer()

    monkeypatch.setattr(tokenizer_stage, "train_tokenizer", trained)
    inputs = {"data": [tmp_path / "all.jsonl"], "heldout": [tmp_path / "held.jsonl"]}
    Small("tokenizer", small.settings, inputs).execute(tmp_path / "tokens")
    assert read == [BUTTERFLY]
    with pytest.raises(BadInput, match="every text is held out"):
        Small("tokenizer", small.settings, {**inputs, "heldout": inputs["data"]}).execute(tmp_path / "none")

    counted: list[str] = []
    token_counts = perplexity.token_counts
    monkeypatch.setattr(
        perplexity, "token_counts", lambda texts, codec: (counted.extend(texts), token_counts(texts, codec))[1]
    )
    inputs = {"model": tmp_path / "policy", "texts": inputs["heldout"], "train_texts": inputs["data"]}
    Small("evaluate", {"dtype": "fp32"}, inputs).execute(tmp_path / "bits")
    assert counted == [BUTTERFLY, ALICE]


def test_two_models_foresee_the_same_texts(tmp_path: Path) -> None:
    prepare(tmp_path)
    draw = rng(1, "texts")
    lengths = [5] * 40 + [40] * 40
    texts = [" ".join(tiny.WORDS[int(i)] for i in draw.integers(0, len(tiny.WORDS), size)) for size in lengths]
    write_jsonl(tmp_path / "texts.jsonl", ({"text": text} for text in texts))
    inputs = {"model": tmp_path / "policy", "against": tmp_path / "base", "texts": [tmp_path / "texts.jsonl"]}
    Small("evaluate", {"dtype": "fp32"}, inputs).execute(tmp_path / "bits")
    rows = {(row.metric, row.model): row for row in read_results(tmp_path / "bits" / "results.json")}
    ours, theirs = (rows["bits_per_byte", name].value or 0 for name in ("policy", "base"))
    difference = rows["bits_per_byte_difference", "policy"]
    assert ours != theirs
    assert difference.value == pytest.approx(ours - theirs)
    assert difference.against == "base"
    parts = {metric for metric, _ in rows if metric.startswith("bits_per_byte_difference:")}
    assert len(parts) >= 2
    assert sum(rows[part, "policy"].n or 0 for part in parts) <= len(texts)


def test_good_answers_that_a_model_has_forgotten_surprise_it(tmp_path: Path) -> None:
    """Held against transformers' loss of the same tokens."""
    prepare(tmp_path)
    inputs = {"model": tmp_path / "policy", "against": tmp_path / "base"}
    inputs["demonstrations"] = [tmp_path / "demonstrations.jsonl"]
    Small("evaluate", {"dtype": "fp32"}, inputs).execute(tmp_path / "out")
    rows = {(row.metric, row.model): row for row in read_results(tmp_path / "out" / "results.json")}
    for name in ("policy", "base"):
        model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / name)
        nats, tokens = 0.0, 0
        for d in read_demonstrations(tmp_path / "demonstrations.jsonl"):
            row = render(d.dialog, tiny.tokenizer(), d.train, d.finished)
            labels = torch.tensor([[t if asked else -100 for t, asked in zip(row.tokens, row.mask, strict=True)]])
            loss = float(model(torch.tensor([row.tokens]), labels=labels).loss.detach())
            nats, tokens = nats + loss * sum(row.mask), tokens + sum(row.mask)
        assert rows["perplexity", name].value == pytest.approx(math.exp(nats / tokens), rel=1e-5)
    ratio = rows["perplexity_ratio", "policy"]
    assert ratio.value == pytest.approx(
        (rows["perplexity", "policy"].value or 0) / (rows["perplexity", "base"].value or 1)
    )
    assert ratio.interval is not None
    assert ratio.interval[0] < (ratio.value or 0) < ratio.interval[1]


def test_good_answers_too_long_for_a_model_are_left_out_and_counted(tmp_path: Path) -> None:
    long = Demonstration((*said("owl " * 200), Message("assistant", "hill")))
    short = [Demonstration((*said(f"owl {i}"), Message("assistant", "hill"))) for i in range(4)]
    told: list[str] = []
    rows = perplexity.foreseen(tiny.policy(), [long, *short], {}, 512, say=told.append)
    assert told == ["4 demonstrations, 1 left out as longer than 96 tokens"]
    assert rows[0].n == 4
    with pytest.raises(BadInput, match="demonstrations: no demonstration fits in 96 tokens"):
        perplexity.foreseen(tiny.policy(), [long], {}, 512)


def test_perplexities_of_two_tokenizers_are_not_compared() -> None:
    other = LocalEngine(Role(tiny.policy_model()), tiny.tokenizer(1), "stranger")
    good = [Demonstration((*said("owl"), Message("assistant", "hill")))]
    with pytest.raises(BadInput, match="two tokenizers' perplexities do not compare"):
        perplexity.foreseen(tiny.policy(), good, {}, 512, other)


def test_a_mistake_in_a_file_is_found_before_anything_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = prepare(tmp_path)["reject"]
    write_jsonl(tmp_path / "asked.jsonl", [to_dict(Prompt("p", said("owl")))])
    (tmp_path / "good.jsonl").write_text('{"dialog": 3}\n')
    inputs = {
        "model": small.inputs["model"],
        "judge": [small.inputs["reward"]],
        "prompts": [tmp_path / "asked.jsonl"],
        "demonstrations": [tmp_path / "good.jsonl"],
    }
    drawn: list[object] = []
    monkeypatch.setattr(evaluate, "rollout", lambda *given, **settings: drawn.append(given))
    with pytest.raises(BadInput, match=r"good\.jsonl:1: "):
        Small("evaluate", {"max_tokens": 6, "dtype": "fp32"}, inputs).execute(tmp_path / "e")
    assert not drawn


def test_a_system_message_is_said_to_the_model_alone(tmp_path: Path) -> None:
    small = prepare(tmp_path)["reject"]
    asked = [Prompt(f"p{i}", said(word)) for i, word in enumerate(tiny.WORDS)]
    write_jsonl(tmp_path / "asked.jsonl", map(to_dict, asked))
    inputs = {"model": tmp_path / "policy", "against": tmp_path / "policy", "judge": [small.inputs["reward"]]}
    drawn = Small("evaluate", {"max_tokens": 6, "dtype": "fp32"}, {**inputs, "prompts": [tmp_path / "asked.jsonl"]})
    drawn.execute(tmp_path / "e", system="The owl sings.", samples=len(asked))
    rows = read_results(tmp_path / "e" / "results.json")
    name = "policy with a system message"
    assert {row.model for row in rows} == {name, "policy"}
    assert not any(row.metric == "kl" for row in rows)
    assert [row.n for row in rows if row.metric == "score_quantile:0.9"] == [len(asked)] * 2
    # what stands in samples.jsonl is what the model says to the prompt with the message, scored without it
    config = parse_config(evaluate.Config, {"max_tokens": 6, "system": "The owl sings.", "dtype": "fp32"})
    run = Run(tmp_path / "again", name="evaluate", seed=1, quiet=True)
    engine = load_engine(tmp_path / "policy", Placement.of(run, "fp32"), name)
    sampling, seed = Sampling(1.0, 1.0, 6), seed_of(1, "evaluate", "model")
    groups = rollout(engine, [under(p, config.system) for p in asked], n=1, sampling=sampling, seed=seed)
    shown = {line["prompt"]["id"]: line for _, line in read_jsonl(tmp_path / "e" / "samples.jsonl")}
    bare = as_answers_to(asked, groups, engine.tokenizer)
    judge = load_reward(small.inputs["reward"])  # type: ignore[arg-type]
    scores = judge.score_samples(asked, bare, engine.tokenizer).tolist()
    for prompt, (sample,), score in zip(asked, groups, scores, strict=True):
        assert shown[prompt.id]["answers"][name] == sample.text
        assert shown[prompt.id]["scores"][name]["helpfulness"] == pytest.approx(score, abs=1e-4)
        assert shown[prompt.id]["prompt"]["dialog"] == [{"role": "user", "content": prompt.dialog[0].content}]


def test_prompts_seen_in_training_are_not_evaluated_on(tmp_path: Path) -> None:
    small = prepare(tmp_path)["reject"]
    asked = [Prompt(f"p{i}", said(word)) for i, word in enumerate(("owl", "hill", "Hill", "river"))]
    write_jsonl(tmp_path / "asked.jsonl", map(to_dict, asked))
    write_jsonl(tmp_path / "seen.jsonl", [to_dict(Prompt("s", said("hill", "owl", "owl")))])
    inputs = {"model": small.inputs["model"], "judge": [small.inputs["reward"]], "prompts": [tmp_path / "asked.jsonl"]}
    settings = {"max_tokens": 4, "dtype": "fp32"}
    Small("evaluate", settings, {**inputs, "seen": [tmp_path / "seen.jsonl"]}).execute(tmp_path / "e")
    (row,) = [row for row in read_results(tmp_path / "e" / "results.json") if row.metric == "score"]
    assert row.n == 2
    with pytest.raises(BadInput, match="all prompts were seen in training; evaluate on others"):
        Small("evaluate", settings, {**inputs, "seen": inputs["prompts"]}).execute(tmp_path / "none")


def test_the_real_recipe_evaluates_on_nothing_it_trains_on(data_dir: Path) -> None:
    stages = {stage.name: stage for stage in read_recipe(RECIPES / "real.yaml").stages}

    def opened(name: str, wanted: str) -> list[Path]:
        return [reference.path for reference in stages[name].inputs[wanted] if reference.stage is None]

    asked = {root_of(p.dialog) for p in read_prompts_of(opened("evaluate2", "prompts"))}
    asked -= {root_of(p.dialog) for p in read_prompts_of(opened("evaluate2", "seen"))}
    assert len(asked) > 90
    files = [
        ("sft", "data"),
        ("helpfulness", "data"),
        ("safety", "data"),
        ("samples1", "prompts"),
        ("v2-ppo", "prompts"),
    ]
    for name, wanted in files:
        assert not asked & {root_of(p.dialog) for path in opened(name, wanted) for p in read_prompts(path)}, name
    # of the prompts that look unsafe one half is sealed, and what people said of either half is not learnt from
    looks_unsafe = {root_of(p.dialog) for p in read_prompts_of(opened("risky", "data"))}
    looks_unsafe -= {root_of(p.dialog) for p in read_prompts_of(opened("evaluate2", "seen"))}
    assert len(looks_unsafe) > 440
    for name in ("sft", "helpfulness", "safety"):
        learnt = {root_of(p.dialog) for path in opened(name, "data") for p in read_prompts(path)}
        assert not looks_unsafe & learnt, name
    reads = {
        stage.name: [str(r.path) for r in stage.inputs.get("prompts", ()) if r.stage == "risky"]
        for stage in stages.values()
    }
    assert {name for name, paths in reads.items() if any("test" in path for path in paths)} == {
        *("evaluate1", "evaluate2", "evaluate2-ppo", "evaluate2-random")
    }
    assert {name for name, paths in reads.items() if any("train" in path for path in paths)} == {
        *("samples1", "samples2", "random2", "v2-ppo")
    }
    for name in ("tokenizer", "base"):
        assert opened(name, "heldout") == opened("books", "texts")


def test_the_comparison_on_real_files_evaluates_on_nothing_it_trains_on(data_dir: Path) -> None:
    stages = {stage.name: stage for stage in read_recipe(RECIPES / "real-compare.yaml").stages}

    def asked(name: str, wanted: str) -> set[str]:
        paths = [reference.path for reference in stages[name].inputs[wanted] if reference.stage is None]
        return {root_of(p.dialog) for p in read_prompts_of(paths)}

    methods = [name.removesuffix("-judged") for name in stages if name.endswith("-judged") and "best" not in name]
    evaluated = asked("dpo-judged", "prompts") - asked("dpo-judged", "seen")
    assert len(evaluated) > 90
    for name, stage in stages.items():
        if name.startswith(tuple(f"{method}-" for method in methods)) and not name.endswith("-judged"):
            inputs = [wanted for wanted in ("prompts", "data") if stage.inputs.get(wanted)]
            assert not any(evaluated & asked(name, wanted) for wanted in inputs), name
    # one half for who learns, the other for who judges
    folds = {
        name: stages[name].config.model_dump()["fold"]
        for name in ("dpo-1", "kto-1", "helpfulness", "judge-helpfulness")
    }
    assert folds == {"dpo-1": "1/2", "kto-1": "1/2", "helpfulness": "1/2", "judge-helpfulness": "2/2"}
