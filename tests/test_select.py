"""Core sets: the clusters and covers against slow references, the embeddings against plain ones, what is taken."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_models import refused
from small_recipes import RECIPES, unmeasured
from small_stages import Small, prepare
from tiny import language_model, sequence_of_words, tokenizer

from ayni.evaluate.results import read_results
from ayni.formats.reading import read_demonstrations
from ayni.maths.core_set import (
    apportioned,
    distance_to_nearest,
    k_center_greedy,
    k_means,
    nearest_to,
    principal_plane,
    squared_distances,
)
from ayni.model.layout import Layout
from ayni.model.role import Role
from ayni.report import build_report
from ayni.runs.recipe import read_recipe
from ayni.text.chat import render
from ayni.train.embeddings import embeddings

RECIPE = RECIPES / "core-set.yaml"


def cloud(count: int, seed: int, dim: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, (count, dim))


# the mathematics


def test_squared_distances_are_those_of_a_loop() -> None:
    a, b = cloud(7, 1), cloud(4, 2)
    slow = [[sum((x - y) ** 2 for x, y in zip(p, q, strict=True)) for q in b] for p in a]
    np.testing.assert_allclose(squared_distances(a, b), slow, atol=1e-12)


def slow_lloyd(points: np.ndarray, centroids: list[np.ndarray]) -> list[int]:
    """Every point to its nearest centroid, every centroid to the mean of its points, until nothing moves."""
    owners: list[int] = []
    while True:
        found = [min(range(len(centroids)), key=lambda k: float(((p - centroids[k]) ** 2).sum())) for p in points]
        if found == owners:
            return owners
        owners = found
        for k in range(len(centroids)):
            mine = [p for p, owner in zip(points, owners, strict=True) if owner == k]
            assert mine  # of these points no cluster loses all
            centroids[k] = sum(mine) / len(mine)  # type: ignore[assignment]


@pytest.mark.parametrize("seed", range(5))
def test_k_means_is_lloyds(seed: int) -> None:
    points = cloud(80, seed)
    from ayni.maths import core_set

    start = core_set._spread(points, 4, np.random.default_rng(seed))
    assert len({tuple(p) for p in start}) == 4
    centroids, owners = k_means(points, 4, np.random.default_rng(seed))
    assert owners.tolist() == slow_lloyd(points, list(start))
    for k in range(4):
        np.testing.assert_allclose(centroids[k], points[owners == k].mean(0))


def test_k_means_finds_what_stands_apart() -> None:
    points = np.concatenate([cloud(30, i) * 0.1 + 10 * i for i in range(4)])
    _, owners = k_means(points, 4, np.random.default_rng(0))
    assert [len(set(owners[30 * i : 30 * i + 30].tolist())) for i in range(4)] == [1] * 4
    assert len(set(owners.tolist())) == 4


def test_no_cluster_stays_empty_and_equal_points_have_some() -> None:
    same = np.ones((6, 3))
    _, owners = k_means(same, 3, np.random.default_rng(0))
    assert sorted(set(owners.tolist())) == [0, 1, 2]
    _, owners = k_means(cloud(3, 0), 3, np.random.default_rng(0))
    assert sorted(owners.tolist()) == [0, 1, 2]
    for k in (0, 4):
        with pytest.raises(ValueError, match="clusters of 3 points"):
            k_means(cloud(3, 0), k, np.random.default_rng(0))


def radius(points: np.ndarray, chosen: Any) -> float:
    return max(min(float(np.sqrt(((p - points[c]) ** 2).sum())) for c in chosen) for p in points)


@pytest.mark.parametrize("seed", range(4))
def test_k_center_greedy_takes_the_farthest_and_covers_within_twice_the_best(seed: int) -> None:
    points = cloud(12, seed, 2)
    chosen = k_center_greedy(points, 4, 3)
    slow = [3]
    while len(slow) < 4:
        gaps = [min(float(((p - points[c]) ** 2).sum()) for c in slow) for p in points]
        slow.append(int(np.argmax(gaps)))
    assert chosen == slow
    best = min(radius(points, some) for some in itertools.combinations(range(12), 4))
    assert best <= radius(points, chosen) <= 2 * best + 1e-9


def test_of_equal_points_none_is_taken_twice() -> None:
    assert sorted(k_center_greedy(np.ones((5, 2)), 5, 2)) == [0, 1, 2, 3, 4]
    assert sorted(k_center_greedy(cloud(5, 0), 9, 0)) == [0, 1, 2, 3, 4]


def test_the_nearest_stand_in_line() -> None:
    points = np.array([[3.0], [1.0], [-2.0], [1.0]])
    assert nearest_to(points, np.array([0.5]), 3) == [1, 3, 0]


@pytest.mark.parametrize(
    ("sizes", "total", "shares"),
    [([10, 20, 30], 6, [1, 2, 3]), ([5, 5, 5], 7, [3, 2, 2]), ([1, 99], 10, [0, 10]), ([0, 3], 3, [0, 3])],
)
def test_places_go_by_size(sizes: list[int], total: int, shares: list[int]) -> None:
    assert apportioned(sizes, total) == shares


def test_shares_are_whole_and_never_more_than_there_is() -> None:
    draw = np.random.default_rng(0)
    for _ in range(200):
        sizes = draw.integers(0, 9, 5).tolist()
        total = int(draw.integers(0, sum(sizes) + 1))
        found = apportioned(sizes, total)
        assert sum(found) == total
        assert all(0 <= n <= size for n, size in zip(found, sizes, strict=True))
        assert all(abs(n - size * total / (sum(sizes) or 1)) < 1 for n, size in zip(found, sizes, strict=True))
    with pytest.raises(ValueError, match="4 of 3"):
        apportioned([1, 2], 4)


def test_the_plane_holds_the_widest_directions() -> None:
    draw = np.random.default_rng(1)
    wide = np.zeros((300, 6))
    wide[:, 2], wide[:, 4] = draw.normal(0, 9, 300), draw.normal(0, 3, 300)
    seen = principal_plane(wide + draw.normal(0, 0.1, wide.shape))
    for axis, column in ((0, 2), (1, 4)):
        assert abs(np.corrcoef(seen[:, axis], wide[:, column])[0, 1]) > 0.99
    np.testing.assert_allclose(seen.mean(0), 0, atol=1e-9)
    assert principal_plane(np.ones((1, 4))).tolist() == [[0, 0]]


def test_distances_to_the_chosen() -> None:
    points = cloud(50, 3)
    slow = [min(float(np.sqrt(((p - points[c]) ** 2).sum())) for c in (4, 9, 20)) for p in points]
    np.testing.assert_allclose(distance_to_nearest(points, [4, 9, 20], at_once=7), slow, atol=1e-7)


def test_embeddings_are_means_of_hidden_states_of_length_one() -> None:
    model = language_model(2)
    rows = [sequence_of_words(n, seed=n) for n in (9, 1, 30, 4, 17)]
    found = embeddings(Role(model), rows, 40)
    for row, vector in zip(rows, found, strict=True):
        with torch.no_grad():
            mean = model(torch.tensor(row), Layout.of([len(row)])).mean(0)
        torch.testing.assert_close(vector, mean / mean.norm(), rtol=1e-5, atol=1e-6)


# the stage


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return prepare(tmp_path_factory.mktemp("inputs"))["select"]


def points_of(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "points.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("method", ["k_center", "nearest", "random"])
def test_a_share_of_every_cluster_is_taken_as_it_stands(method: str, small: Small, tmp_path: Path) -> None:
    small.execute(tmp_path / "o", method=method)
    data = read_demonstrations(small.inputs["data"][0])  # type: ignore[index]
    points = points_of(tmp_path / "o")
    assert [p["index"] for p in points] == list(range(20))
    chosen = [p["index"] for p in points if p["chosen"]]
    assert len(chosen) == 6
    assert read_demonstrations(tmp_path / "o" / "records.jsonl") == [data[i] for i in chosen]
    rows = {row.axis: row for row in read_results(tmp_path / "o" / "results.json")}
    assert rows.keys() == {method, "control"}
    assert {row.metric for row in rows.values()} == {"distance_to_chosen"}
    vectors = embeddings(
        Role(language_model(4)), [render(d.dialog, tokenizer(), d.train).tokens for d in data], 120
    ).double()
    away = distance_to_nearest(vectors.numpy(), chosen)
    assert rows[method].value == pytest.approx(float(away.mean()), abs=1e-5)
    if method == "random":
        assert {p["cluster"] for p in points} == {0}
        return
    assert {p["cluster"] for p in points} == {0, 1, 2}
    sizes = [sum(p["cluster"] == c for p in points) for c in range(3)]
    taken = [sum(p["cluster"] == c and p["chosen"] for p in points) for c in range(3)]
    assert taken == apportioned(sizes, 6)
    if method == "nearest":
        for c in range(3):
            own = np.array([p["index"] for p in points if p["cluster"] == c])
            near = nearest_to(vectors.numpy()[own], vectors.numpy()[own].mean(0), taken[c])
            assert {own[i] for i in near} == {p["index"] for p in points if p["cluster"] == c and p["chosen"]}


def test_k_center_covers_more_than_chance(small: Small, tmp_path: Path) -> None:
    small.execute(tmp_path / "o", clusters=1)
    rows = {row.axis: row.value for row in read_results(tmp_path / "o" / "results.json")}
    assert rows["k_center"] < rows["control"]  # type: ignore[operator]


def test_any_instruction_file_and_the_prompt_alone(small: Small, tmp_path: Path) -> None:
    lines = [{"instruction": f"the owl {i}", "output": "a hare " * (i % 5 + 1)} for i in range(12)]
    lines.append({"instruction": "why", "output": "the hill " * 90})  # longer than the context
    (tmp_path / "alpaca.json").write_text(json.dumps(lines))
    mine = Small("select", small.settings, {**small.inputs, "data": [tmp_path / "alpaca.json"]})
    mine.execute(tmp_path / "o", chosen_share=0.25, embed="dialogue", clusters=1)
    assert len(read_demonstrations(tmp_path / "o" / "records.jsonl")) == 3
    assert len(points_of(tmp_path / "o")) == 12
    mine.execute(tmp_path / "p", chosen_share=0.25, embed="prompt", clusters=1)
    assert len(points_of(tmp_path / "p")) == 13


def test_what_it_refuses(small: Small, tmp_path: Path) -> None:
    assert "clusters: 7 clusters, and 6 dialogues to take; " in refused(
        lambda: small.execute(tmp_path / "o", clusters=7)
    )
    (tmp_path / "long.jsonl").write_text(json.dumps({"prompt": "why", "completion": "the hill " * 90}) + "\n")
    mine = Small("select", small.settings, {**small.inputs, "data": [tmp_path / "long.jsonl"]})
    assert "long.jsonl: no dialogue fits in 96 tokens" in refused(lambda: mine.execute(tmp_path / "o"))
    assert "chosen_share: Input should be greater than 0" in refused(
        lambda: small.execute(tmp_path / "o", chosen_share=0.0)
    )
    assert not (tmp_path / "o").exists()


def test_the_report_draws_what_was_taken(small: Small, tmp_path: Path) -> None:
    small.execute(tmp_path / "o")
    page = build_report(tmp_path / "o").read_text()
    assert "What was chosen of all dialogues" in page
    assert "6 of 20" in page
    assert small.execute(tmp_path / "o") == "reused"  # the page is no part of what the stage left
    file = tmp_path / "o" / "points.jsonl"
    file.write_text(file.read_text() + '{"x": 1}\n')
    assert "points.jsonl:21: not a point" in refused(lambda: build_report(tmp_path / "o"))


def test_the_recipe_at_a_size_of_seconds(tmp_path: Path) -> None:
    assert len(read_recipe(RECIPE).claims) == 4
    assert unmeasured(RECIPE, tmp_path / "run") == []
    assert "What was chosen of all dialogues" in build_report(tmp_path / "run").read_text()
