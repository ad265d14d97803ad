"""A core set of demonstrations: few that stand for many (Chen et al. 2023, "Maybe only 0.5% data is needed").

Every dialogue becomes a vector, the mean of a model's last hidden states; K-means parts the vectors, and of every
cluster the same share is taken: by K-center-greedy, the nearest to the centroid, or at random as the control.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from ayni.config import Config as Base
from ayni.errors import BadInput
from ayni.evaluate.results import result, write_results
from ayni.files import write_jsonl
from ayni.formats.reading import read_demonstrations
from ayni.maths.clustered import clustered_mean
from ayni.maths.core_set import (
    Floats,
    apportioned,
    distance_to_nearest,
    k_center_greedy,
    k_means,
    nearest_to,
    principal_plane,
)
from ayni.model.placement import Placement
from ayni.model.precision import Dtype
from ayni.model.role import Role
from ayni.model_directory import load_model
from ayni.records import Demonstration, root_of, to_dict
from ayni.run import Run
from ayni.seeds import rng
from ayni.stage import Face, Input
from ayni.text.chat import render, render_prompt
from ayni.text.tokenizer import Tokenizer
from ayni.train.embeddings import embeddings

VERSION = 1
FACE = Face(
    "records",
    inputs=(
        Input("model", "model", ("language_model",)),
        Input("data", "records.jsonl", ("demonstrations",), many=True),
    ),
    leaves={"records.jsonl": "demonstrations"},
)


class Config(Base):
    """The share and the number of clusters of the paper's tasks are its own; 0.5% is of one task of 400,000."""

    method: Literal["k_center", "nearest", "random"] = Field(
        "k_center", description="which of a cluster; random: of all, without clusters, the control"
    )
    chosen_share: float = Field(0.05, gt=0, le=1, description="of the dialogues")
    clusters: int = Field(10, ge=1, description="of K-means, of each of which the same share is taken")
    embed: Literal["dialogue", "prompt"] = Field("dialogue", description="what of it the model reads")
    tokens_per_micro_batch: int = Field(8192, ge=1, description="tokens of one forward pass")
    dtype: Dtype = "auto"


def run(config: Config, inputs: dict[str, Any], run: Run) -> None:
    run.begin_anew()
    model, tokenizer = load_model(inputs["model"], expect="logits")
    placement = Placement.of(run, config.dtype)
    role = Role(placement.freeze(model))
    read = [d for path in inputs["data"] for d in read_demonstrations(Path(path))]
    rows = [tokens_of(d, tokenizer, config) for d in read]
    kept = [i for i, row in enumerate(rows) if len(row) <= role.context]
    if not kept:
        raise BadInput(f"no dialogue fits in {role.context} tokens", path=inputs["data"][0])
    run.say(f"{len(kept)} dialogues, {len(read) - len(kept)} left out as longer than {role.context} tokens")
    demonstrations = [read[i] for i in kept]
    read_by_model = [rows[i] for i in kept]
    points = embeddings(role, read_by_model, config.tokens_per_micro_batch, placement.ranks).double().numpy()
    count = max(1, round(config.chosen_share * len(points)))
    if config.clusters > count and config.method != "random":
        what = f"{config.clusters} clusters, and {count} dialogues to take"
        raise BadInput(what, field="clusters", fix="take a larger share, or lower clusters")
    owners = np.zeros(len(points), np.int64)
    if config.method != "random":
        _, owners = k_means(points, config.clusters, rng(run.seed, run.name, "k-means"))
    chosen = sorted(choose(points, owners, count, config, run))
    taken = {*chosen}
    write_jsonl(run.directory / "records.jsonl", (to_dict(demonstrations[i]) for i in chosen))
    write_jsonl(
        run.directory / "points.jsonl",
        (
            {"index": kept[i], "x": round(x, 6), "y": round(y, 6), "cluster": int(owners[i]), "chosen": i in taken}
            for i, (x, y) in enumerate(principal_plane(points).tolist())
        ),
    )
    control = rng(run.seed, run.name, "control").permutation(len(points))[:count].tolist()
    clusters = [root_of(d.dialog) for d in demonstrations]
    rows_of = [
        result("distance_to_chosen", clustered_mean(distance_to_nearest(points, some), clusters), axis=axis, **who)
        for axis, some, who in (
            (config.method, chosen, {"model": run.name, "seed": run.seed}),
            ("control", control, {"model": run.name, "seed": run.seed}),
        )
    ]
    write_results(run.directory / "results.json", rows_of)
    run.log(1, dialogues=len(points), chosen=len(chosen), left_out=len(read) - len(kept))
    run.say(f"{len(chosen)} of {len(points)} dialogues chosen by {config.method}")


def tokens_of(d: Demonstration, tokenizer: Tokenizer, config: Config) -> list[int]:
    """What of a dialogue the model reads."""
    if config.embed == "prompt":
        return render_prompt(d.dialog[:-1], tokenizer)
    return render(d.dialog, tokenizer, d.train, d.finished).tokens


def choose(points: Floats, owners: Sequence[int] | np.ndarray, count: int, config: Config, run: Run) -> list[int]:
    """`count` of the points, of every cluster in proportion to its size."""
    if config.method == "random":
        return rng(run.seed, run.name, "random").permutation(len(points))[:count].tolist()
    owned = [np.flatnonzero(np.asarray(owners) == cluster) for cluster in range(config.clusters)]
    chosen: list[int] = []
    for members, wanted in zip(owned, apportioned([len(each) for each in owned], count), strict=True):
        own = points[members]
        if not wanted:
            continue
        found = nearest_to(own, own.mean(0), wanted)
        if config.method == "k_center":
            found = k_center_greedy(own, wanted, found[0])  # from the middle outwards
        chosen += members[found].tolist()
    return chosen
