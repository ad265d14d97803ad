"""Every study of recipes/paper at a size of seconds: it runs, and what its claims speak of is one row of results.json.

Whether a claim holds says nothing at this size; that it can be judged does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ayni.evaluate.results import read_results
from ayni.records import RATINGS, Prompt
from ayni.runs.claims import judged
from ayni.runs.pipeline import run_recipe
from ayni.runs.recipe import Recipe, read_recipe
from ayni.seeds import rng
from ayni.village.annotators import Opinion, SimulatedAnnotators

RECIPES = Path(__file__).parent.parent / "recipes"
STUDIES = sorted((RECIPES / "paper").glob("*.yaml"))
PAGE = (RECIPES.parent / "docs" / "paper.md").read_text(encoding="utf-8")
# What makes a stage small, by its kind; of settings that are 0 or empty where they stand, only those that are not.
SMALL: dict[str, dict[str, Any]] = {
    "village": {
        **{"words": 40000, "demonstrations": 200, "exercises": 60, "prompts": 400},
        **{"attacks": 60, "safety_demonstrations": 60, "obeying": 80, "heldout_words": 20000},
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
    "study": {"limit": 8, "threshold": 0, "max_tokens": 8, "dtype": "fp32"},
}
OPTIONAL = {("village", key) for key in ("attacks", "safety_demonstrations", "obeying", "heldout_words")}
OPTIONAL |= {("ppo", "snapshot_every"), ("collect", "limit")}


def small(recipe: Recipe) -> Iterator[str]:
    """`--set` of every stage that runs."""
    for stage in recipe.stages:
        for key, value in SMALL[stage.stage.kind].items():
            if (stage.stage.kind, key) not in OPTIONAL or getattr(stage.config, key):
                yield f"{stage.name}.{key}={str(value).lower()}"


def opinion(panel: object, annotator: object, prompt: Prompt, a: str, b: str, *, task: str, key: object) -> Opinion:
    """Of every degree and label: models as small as these say nothing that people would clearly prefer."""
    draw = rng("opinion", prompt.id, key)
    first, rating = bool(draw.integers(2)), RATINGS[int(draw.integers(4))]
    chosen, rejected = ((True, False), (True, False), (True, True), (False, False))[int(draw.integers(4))]
    return Opinion(first, rating, ((chosen, rejected) if first else (rejected, chosen)) if task == "safety" else None)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One run's directory for all: what one study made the next finds there."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(SimulatedAnnotators, "opinion", opinion)
        yield tmp_path_factory.mktemp("paper") / "run"


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_study_measures_what_it_claims(path: Path, out: Path) -> None:
    recipe = read_recipe(path)
    assert recipe.claims, "a study says before it runs what it would show"
    assert all(claim.paper for claim in recipe.claims)
    run_recipe(path, out, list(small(recipe)), quiet=True)
    missing = [f"{each.claim.says}: {each.why}" for each in judged(recipe.claims, read_results(out / "results.json"))]
    assert [text for text in missing if re.search("nothing measured|numbers are meant", text)] == []


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_study_opens_no_test_split_and_can_be_found(path: Path) -> None:
    recipe = read_recipe(path)
    assert recipe.name == path.stem
    run = set(recipe.only or (stage.name for stage in recipe.stages))
    assert not any(getattr(stage.config, "final", False) for stage in recipe.stages if stage.name in run)
    assert f"ayni run recipes/paper/{path.name} --out runs/paper" in PAGE
