"""Margin tables, weights and mixes of the reward stage."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_stages import Small, comparisons, prepare
from tiny import tokenizer

from ayni.config import parse_config
from ayni.errors import BadInput
from ayni.files import write_jsonl
from ayni.records import RATINGS, Comparison, Rating, to_dict
from ayni.stages import reward
from ayni.train.batch import Pair

OWN = dict(zip(RATINGS, (2.0, 1.5, 0.5, 0.25), strict=True))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return prepare(tmp_path_factory.mktemp("inputs"))["reward"]


def learned(small: Small, directory: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> list[Pair]:
    """What the stage would train on."""
    seen: list[Pair] = []
    with monkeypatch.context() as patch:
        patch.setattr(reward.Config, "fit", lambda self, model, items, objective, run: seen.extend(items))
        small.execute(directory, **settings)
    return seen


def of(small: Small, directory: Path, data: list[Comparison]) -> Small:
    write_jsonl(directory / "data.jsonl", map(to_dict, data))
    return Small(small.kind, small.settings, {**small.inputs, "data": [directory / "data.jsonl"]})


# margins


def test_a_margin_table_of_one_s_own_reaches_the_pairs() -> None:
    config = parse_config(reward.Config, {"margin": OWN})
    for c in comparisons(4):
        for rating in RATINGS:
            assert reward.pair_of(replace(c, rating=rating), tokenizer(), config).margin == OWN[rating]
    # and what is dumped for the stage's identity can be read again
    assert parse_config(reward.Config, config.model_dump(mode="json")) == config
    assert reward.Config().model_dump(mode="json")["margin"] == "small"


def test_a_probability_takes_the_place_of_the_rating_s_margin() -> None:
    (c,) = comparisons(1)
    config = parse_config(reward.Config, {"margin": OWN})
    soft = reward.pair_of(replace(c, probability=0.7), tokenizer(), config)
    assert (soft.probability, soft.margin) == (0.7, 0.0)
    own = reward.pair_of(replace(c, probability=0.7, margin=0.5), tokenizer(), config)
    assert (own.probability, own.margin) == (0.7, 0.5)
    assert reward.pair_of(c, tokenizer(), config).probability == 1.0


def without(rating: Rating) -> dict[str, float]:
    return {key: margin for key, margin in OWN.items() if key != rating}


@pytest.mark.parametrize(
    ("margin", "field", "what"),
    [
        ("medium", "margin", "'none', 'small' or 'large'"),
        (without("better"), "margin.table.better", "Field required"),
        ({**OWN, "best": 4.0}, "margin.table.best", "unknown key"),
        ({**OWN, "better": -1.0}, "margin.table.better", "greater than or equal to 0"),
        ({**OWN, "better": 2.5}, "margin", "a weaker preference must not have a larger margin"),
        (3.0, "margin", "valid dictionary"),
    ],
)
def test_a_margin_table_that_is_none_is_refused_by_name(margin: Any, field: str, what: str) -> None:
    with pytest.raises(BadInput) as error:
        parse_config(reward.Config, {"margin": margin})
    assert field in str(error.value)
    assert what in str(error.value)


# weights and mixes


def test_weights_are_those_of_the_sources_beside_each_other(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = [replace(c, task="safety", source=("hh", "shp", "")[i % 3]) for i, c in enumerate(comparisons(18))]
    stage = of(small, tmp_path, data)
    plain = learned(stage, tmp_path / "plain", monkeypatch)
    assert {p.weight for p in plain} == {1.0}
    pairs = learned(stage, tmp_path / "weighted", monkeypatch, weights={"hh": 4.0, "shp": 0.5})
    weights = np.array([p.weight for p in pairs])
    assert weights.mean() == pytest.approx(1)
    assert sorted(set((weights / weights.min()).round(6))) == [1, 2, 8]  # ½, 1 and 4
    assert [replace(p, weight=1.0) for p in pairs] == plain
    with pytest.raises(BadInput, match=r"weights: no pair has the source 'HH'; sources: hh, shp"):
        stage.execute(tmp_path / "misspelt", weights={"HH": 2.0})
    assert not (tmp_path / "misspelt").exists()
    with pytest.raises(BadInput, match=r"weights.hh"):
        stage.execute(tmp_path / "none", weights={"hh": 0.0})


def test_the_paper_s_half_and_half_can_be_asked_for(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """§3.2.2: all of Meta's helpfulness, and as many of the others."""
    own = [replace(c, task="helpfulness", safety=None) for c in comparisons(12)]
    others = [replace(c, task="safety") for c in comparisons(20, seed=5)]
    stage = of(small, tmp_path, [*own, *others])
    half = {"task": "helpfulness", "other_share": 0.5, "safety_weight": 0.0}
    alone = learned(stage, tmp_path / "alone", monkeypatch, **{**half, "other_share": None})
    mixed = learned(stage, tmp_path / "mixed", monkeypatch, **half)
    assert mixed[: len(alone)] == alone
    assert len(mixed) == 2 * len(alone)


# results


def test_parts_of_the_held_out_pairs_stand_in_the_results(small: Small, tmp_path: Path) -> None:
    data = [replace(c, task="safety", source=("hh", "shp")[i % 2]) for i, c in enumerate(comparisons(80, seed=3))]
    write_jsonl(tmp_path / "heldout.jsonl", map(to_dict, data))
    stage = Small(small.kind, small.settings, {**small.inputs, "heldout": [tmp_path / "heldout.jsonl"]})
    stage.execute(tmp_path / "rm")
    rows = json.loads((tmp_path / "rm" / "results.json").read_text())["results"]
    parts = {row["metric"]: row for row in rows if row["metric"].startswith("accuracy_by_")}
    (overall,) = [row for row in rows if row["metric"] == "accuracy"]
    sources = [parts[f"accuracy_by_source:{name}"] for name in ("hh", "shp")]
    assert sum(row["n"] for row in sources) == overall["n"] == 80
    assert sum(row["n"] * row["value"] for row in sources) == pytest.approx(overall["n"] * overall["value"])
    assert all(row["judge"] == "labels" and row["split"] == "heldout" and row["clusters"] for row in parts.values())
