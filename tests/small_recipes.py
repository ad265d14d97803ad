"""Recipes at a size of seconds: they run, and what their claims speak of is one row of results.json."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ayni.evaluate.results import read_results
from ayni.runs.claims import judged
from ayni.runs.pipeline import run_recipe
from ayni.runs.recipe import Recipe, read_recipe

RECIPES = Path(__file__).parent.parent / "recipes"
# What makes a stage small, by its kind; of settings that are 0 or empty where they stand, only those that are not.
SMALL: dict[str, dict[str, Any]] = {
    "village": {
        **{"words": 40000, "demonstrations": 200, "exercises": 60, "prompts": 400, "attacks": 60, "revising": 60},
        **{"safety_demonstrations": 60, "obeying": 80, "heldout_words": 20000, "heldout_demonstrations": 40},
    },
    "tokenizer": {"vocab_size": 500},
    "pretrain": {"dim": 16, "layers": 1, "heads": 2, "kv_heads": 1, "hidden": 32, "tokens": 50000, "dtype": "fp32"},
    "sft": {"limit": 100, "epochs": 1, "dtype": "fp32"},
    "collect": {"limit": 90, "max_tokens": 12, "dtype": "fp32"},
    "reward": {"start_answers": 8, "dtype": "fp32"},
    "reject": {
        **{"limit": 12, "tried_prompts": 6, "threshold": 0, "max_tokens": 8, "finished_only": False},
        "dtype": "fp32",
    },
    "distill": {"limit": 6, "n": 2, "keep": "all", "max_tokens": 200, "dtype": "fp32"},
    "ghost": {"limit": 12, "cuts": 1, "lists": 1, "max_tokens": 60, "dtype": "fp32"},
    "ppo": {
        **{"iterations": 2, "batch_size": 16, "mini_batch": 8, "critic_warmup": 1, "snapshot_every": 2},
        **{"threshold": 0, "max_tokens": 8, "dtype": "fp32"},
    },
    "evaluate": {"limit": 12, "max_tokens": 8, "kl_prompts": 4, "threshold": 0, "dtype": "fp32"},
    "examine": {"max_tokens": 4, "fact_answers": 2, "dtype": "fp32"},
    "redteam": {"limit": 30, "max_tokens": 8, "dtype": "fp32"},
    "persistence": {"conversations": 6, "attention": 2, "max_tokens": 8, "dtype": "fp32"},
    "diversity": {"each": 6, "n": 3, "max_tokens": 8, "dtype": "fp32"},
    "revise": {"limit": 12, "max_tokens": 24, "temperature": 2.0, "dtype": "fp32"},
    "crossvalidate": {},
    "split": {},
    "select": {"clusters": 4, "dtype": "fp32"},
    "label": {"dtype": "fp32"},
    "study": {"limit": 8, "threshold": 0, "max_tokens": 8, "dtype": "fp32"},
}
OPTIONAL = {("village", key) for key in ("attacks", "revising", "safety_demonstrations", "obeying")}
OPTIONAL |= {("village", key) for key in ("heldout_words", "heldout_demonstrations")}
OPTIONAL |= {("ppo", "snapshot_every"), ("collect", "limit")}


def small(recipe: Recipe) -> Iterator[str]:
    """`--set` of every stage that runs."""
    for stage in recipe.stages:
        for key, value in SMALL[stage.stage.kind].items():
            if (stage.stage.kind, key) not in OPTIONAL or getattr(stage.config, key):
                yield f"{stage.name}.{key}={str(value).lower()}"


def run_small(path: Path, out: Path, *more: str) -> dict[str, Any]:
    """Runs the recipe small, with `more` settings as `--set` takes them."""
    return run_recipe(path, out, [*small(read_recipe(path)), *more], quiet=True)


def unmeasured(path: Path, out: Path, *more: str) -> list[str]:
    """Runs the recipe small; the claims that no number is there for, or several. Models so small may only tie."""
    run_small(path, out, *more)
    found = judged(read_recipe(path).claims, read_results(out / "results.json"))
    assert found, "the recipe claims nothing"
    return [f"{c.claim.says}: {c.why}" for c in found if re.search("nothing measured|numbers are meant", c.why)]
