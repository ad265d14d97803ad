"""Every study of recipes/paper at a size of seconds: it runs, and what its claims speak of is one row of results.json.

Whether a claim holds says nothing at this size; that it can be judged does.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from small_recipes import RECIPES, unmeasured

from ayni.records import RATINGS, Prompt
from ayni.runs.recipe import read_recipe
from ayni.seeds import rng
from ayni.village.annotators import Opinion, SimulatedAnnotators

STUDIES = sorted((RECIPES / "paper").glob("*.yaml"))
PAGE = (RECIPES.parent / "docs" / "paper.md").read_text(encoding="utf-8")


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
    assert unmeasured(path, out) == []


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_study_opens_no_test_split_and_can_be_found(path: Path) -> None:
    recipe = read_recipe(path)
    assert recipe.name == path.stem
    run = set(recipe.only or (stage.name for stage in recipe.stages))
    assert not any(getattr(stage.config, "final", False) for stage in recipe.stages if stage.name in run)
    assert f"ayni run recipes/paper/{path.name} --out runs/paper" in PAGE
