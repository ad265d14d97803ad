"""Every stage that trains or samples, at a size of about a tenth of a second, and how to run and compare them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tiny import WORDS, language_model, policy_model, prompts, reward_model, tokenizer

from ayni.config import parse_config
from ayni.files import write_jsonl
from ayni.model.score_scale import Anchor, ScoreScale
from ayni.model_directory import save_model
from ayni.records import RATINGS, Comparison, Constraint, Demonstration, Message, Principle, Prompt, to_dict
from ayni.rollout import engine
from ayni.runs.execution import execute
from ayni.runs.faces import load_stage
from ayni.text.chat import render_prompt
from ayni.village.village import village_of

# every one that trains or samples, and who reads with a model
STAGES = (
    *("tokenizer", "pretrain", "sft", "reward", "dpo", "kto", "rrhf"),
    *("collect", "reject", "distill", "revise", "select", "ghost", "ppo"),
    *("pro", "raft"),  # rrhf and reject in their other forms
    *("choose", "split"),
)
ANCHORED = ScoreScale(Anchor(1.0, safe=9, unsafe=4))
OPTIMISER = {"lr": 5e-3, "warmup": 0.03}
FIT = {"optimiser": OPTIMISER, "tokens_per_micro_batch": 120, "checkpoint_every": 2, "dtype": "fp32"}


@dataclass(frozen=True)
class Small:
    """One stage with its settings and inputs."""

    kind: str
    settings: Mapping[str, Any]
    inputs: Mapping[str, Path | list[Path]]

    def execute(self, directory: Path, **changed: Any) -> str:
        """Runs, resumes or finds it finished; samples come in chunks of nine, so that there are several."""
        before, engine.CHUNK_SAMPLES = engine.CHUNK_SAMPLES, 9
        try:
            config = parse_config(load_stage(self.kind).config, {**self.settings, **changed})
            return execute(self.kind, config, self.inputs, directory, name=self.kind, seed=1, quiet=True)
        finally:
            engine.CHUNK_SAMPLES = before


def sentences(count: int, seed: int) -> Iterator[str]:
    draw = np.random.default_rng(seed)
    for _ in range(count):
        yield " ".join(draw.choice(WORDS, draw.integers(1, 5)))


def comparisons(count: int, seed: int = 0) -> list[Comparison]:
    """Chosen answers say "owl", rejected ones never do; every third is about safety."""
    draw = np.random.default_rng(seed)
    found = []
    for i, (prompt, text) in enumerate(zip(prompts(count, seed=seed), sentences(count, seed + 1), strict=True)):
        task: Any = "safety" if i % 3 == 0 else "helpfulness"
        label: Any = ["chosen_safe", "both_safe", "both_unsafe"][i % 9 // 3] if task == "safety" else None
        rejected = text.replace("owl", "hill")
        rating = RATINGS[int(draw.integers(4))]
        found.append(Comparison(prompt, f"{rejected} owl", rejected, task, rating, safety=label))
    return found


CONSTRAINTS = [
    Constraint(f"{kind}-{name}", f"Be a {name}.", f"{name}!", kind) for kind in ("a", "b") for name in ("owl", "hare")
]


PRINCIPLES = [Principle(name, f"why {name}", f"say {name}") for name in ("owl", "hare")]


def talks(count: int) -> list[Prompt]:
    """Conversations of three turns; what the assistant says in them is never heard."""
    asked = zip(prompts(count, seed=5), prompts(count, seed=6), prompts(count, seed=7), strict=True)
    said = Message("assistant", "NOBODY SAID THIS")
    return [replace(a, dialog=(*a.dialog, said, *b.dialog, said, *c.dialog)) for a, b, c in asked]


def prepare(directory: Path) -> dict[str, Small]:
    """Writes the inputs into `directory`; stage name → how to run it."""
    words, inputs = tokenizer(), {name: directory / name for name in ("tokenizer", "policy", "helpful", "safe")}
    words.save(directory / "tokenizer")
    save_model(directory / "policy", policy_model(0), words)
    save_model(directory / "helpful", reward_model(1), words)
    save_model(directory / "safe", reward_model(2), words, extra=ANCHORED.noted())
    save_model(directory / "base", language_model(4), words)
    save_model(directory / "start", policy_model(5), words)
    save_model(directory / "other", policy_model(6), words)
    draw = np.random.default_rng(0)
    write_jsonl(directory / "corpus.jsonl", ({"text": " ".join(draw.choice(WORDS, 30))} for _ in range(30)))
    answers = zip(prompts(20), sentences(20, 7), strict=True)
    dialogs = [(*p.dialog, Message("assistant", answer)) for p, answer in answers]
    write_jsonl(directory / "demonstrations.jsonl", (to_dict(Demonstration(d)) for d in dialogs))
    write_jsonl(directory / "comparisons.jsonl", map(to_dict, comparisons(24)))
    write_jsonl(directory / "heldout.jsonl", map(to_dict, comparisons(24, seed=8)))
    write_jsonl(directory / "prompts.jsonl", map(to_dict, [*prompts(8), *prompts(4, seed=1, task="safety")]))
    adversarial = prompts(16, seed=5, task="safety")
    write_jsonl(directory / "adversarial.jsonl", map(to_dict, [*prompts(3), *adversarial]))
    write_jsonl(directory / "validation.jsonl", map(to_dict, prompts(4, seed=2)))
    village = [p for p in village_of(7).prompts("train", 60) if len(render_prompt(p.dialog, words)) < 70]
    write_jsonl(directory / "village.jsonl", map(to_dict, village[:10]))
    save_model(directory / "talker", policy_model(0, context=400), words)
    save_model(directory / "listener", reward_model(1, context=400), words)
    write_jsonl(directory / "talks.jsonl", map(to_dict, talks(6)))
    write_jsonl(directory / "constraints.jsonl", map(to_dict, CONSTRAINTS))
    write_jsonl(directory / "principles.jsonl", map(to_dict, PRINCIPLES))
    texts, asked = [directory / "corpus.jsonl"], [directory / "prompts.jsonl"]
    pairs, model = [directory / "comparisons.jsonl"], inputs["policy"]
    shape = {"dim": 16, "layers": 2, "heads": 2, "kv_heads": 1, "hidden": 24, "context": 96, "row_tokens": 64}
    return {
        "tokenizer": Small("tokenizer", {"vocab_size": 300}, {"data": texts}),
        "pretrain": Small(
            "pretrain", {**FIT, **shape, "batch_size": 6}, {"tokenizer": directory / "tokenizer", "data": texts}
        ),
        "sft": Small(
            "sft",
            {**FIT, "batch_size": 5, "epochs": 2, "dropout": 0.2},
            {"model": directory / "base", "data": [directory / "demonstrations.jsonl"]},
        ),
        "reward": Small(
            "reward",
            {**FIT, "task": "safety", "batch_size": 2, "other_share": 0.5, "safety_weight": 1.0},
            {"model": model, "data": pairs, "heldout": [directory / "heldout.jsonl"]},
        ),
        "kto": Small("kto", {**FIT, "batch_size": 8}, {"model": model, "data": pairs}),
        "dpo": Small("dpo", {**FIT, "batch_size": 4}, {"model": model, "data": pairs}),
        "rrhf": Small(
            "rrhf",
            {**FIT, "n": 3, "max_tokens": 8, "batch_size": 6, "epochs": 3},
            {"model": model, "reward": inputs["helpful"], "reward_safety": inputs["safe"], "prompts": asked},
        ),
        "pro": Small(
            "rrhf",
            {**FIT, "loss": "pro", "candidates": "diverse_beams", "n": 3, "max_tokens": 8, "batch_size": 8},
            {"model": model, "reward": inputs["helpful"], "data": pairs},
        ),
        "raft": Small(
            "reject",
            {"n": 3, "max_tokens": 16, "dtype": "fp32", "beta": 0.1, "keep": "quantile"},
            {"model": model, "reward": inputs["helpful"], "reference": directory / "base", "prompts": asked},
        ),
        "collect": Small(
            "collect",
            {"max_tokens": 10, "heldout_share": 0.3, "dtype": "fp32", "pairs_per_prompt": 3},
            {"model": model, "prompts": [directory / "village.jsonl"]},
        ),
        "reject": Small(
            "reject",
            {"n": 3, "max_tokens": 16, "dtype": "fp32"},
            {"model": model, "reward": inputs["helpful"], "reward_safety": inputs["safe"], "prompts": asked},
        ),
        "distill": Small(
            "distill",
            {"n": 3, "max_tokens": 16, "dtype": "fp32", "preprompts": ["the owl", "a wise hare"]},
            {"model": model, "reward_safety": inputs["safe"], "prompts": [directory / "adversarial.jsonl"]},
        ),
        "revise": Small(
            "revise",
            {"rounds": 2, "max_tokens": 12, "dtype": "fp32"},
            {
                "model": directory / "talker",
                "prompts": [directory / "adversarial.jsonl"],
                "principles": directory / "principles.jsonl",
            },
        ),
        "split": Small("split", {"test_share": 0.3}, {"data": [directory / "demonstrations.jsonl"]}),
        "select": Small(
            "select",
            {"chosen_share": 0.3, "clusters": 3, "tokens_per_micro_batch": 120, "dtype": "fp32"},
            {"model": directory / "base", "data": [directory / "demonstrations.jsonl"]},
        ),
        "ghost": Small(
            "ghost",
            {"n": 2, "cuts": 2, "max_tokens": 12, "dtype": "fp32"},
            {
                "model": directory / "talker",
                "reward": directory / "listener",
                "prompts": [directory / "talks.jsonl"],
                "constraints": [directory / "constraints.jsonl"],
            },
        ),
        "choose": Small(
            "choose",
            {"max_tokens": 12, "dtype": "fp32"},
            {
                "models": [directory / "other", model],
                "start": directory / "start",
                "reward": inputs["helpful"],
                "reward_safety": inputs["safe"],
                "prompts": [directory / "validation.jsonl"],
            },
        ),
        "ppo": Small(
            "ppo",
            {
                "iterations": 5,
                "batch_size": 8,
                "mini_batch": 4,
                "max_tokens": 10,
                "beta": 0.05,
                "optimiser": {"lr": 1e-3, "schedule": "constant"},
                "critic_optimiser": {"lr": 1e-3, "schedule": "constant"},
                "validate_every": 2,
                "snapshot_every": 2,
                "checkpoint_every": 2,
                "critic_warmup": 1,
                "tokens_per_micro_batch": 120,
                "dtype": "fp32",
            },
            {
                "model": model,
                "reward_helpfulness": inputs["helpful"],
                "reward_safety": inputs["safe"],
                "prompts": asked,
                "validation": [directory / "validation.jsonl"],
            },
        ),
    }


def contents(directory: Path) -> dict[str, str]:
    """Every file a stage left, by hash; DONE.json, which says when and how long, is left out."""
    return {
        file.relative_to(directory).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(directory.rglob("*"))
        if file.is_file() and file.name != "DONE.json"
    }
