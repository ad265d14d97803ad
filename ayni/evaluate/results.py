"""results.json: one row per measured number, the same schema for every stage and every run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import ConfigDict

from ayni.errors import BadInput
from ayni.files import read_json, write_json
from ayni.maths.statistics import Estimate
from ayni.records import Count, Number, Text, from_dict

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Result:
    """One number: what was measured (`metric`, on an `axis`), by which `judge`, of which `model` (`against` another).

    `n` counts items, ties included, in so many `clusters` of which each stands or falls together; `wins`, `ties`,
    `losses` are the model's. `interval` is at `level`; absent is None, as where the clusters are too few for one.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")
    metric: Text
    axis: Text | None = None
    judge: Text | None = None
    model: Text | None = None
    against: Text | None = None
    split: Text | None = None
    n: Count | None = None
    clusters: Count | None = None
    wins: Count | None = None
    ties: Count | None = None
    losses: Count | None = None
    value: Number | None = None
    interval: tuple[Number, Number] | None = None
    level: Number | None = None
    method: Text | None = None
    seed: Count | None = None


@dataclass(frozen=True, slots=True)
class _File:
    __pydantic_config__ = ConfigDict(extra="forbid")
    schema: Count
    results: tuple[Result, ...]


def result(metric: str, estimate: Estimate, **where: Any) -> Result:
    """The row for an estimate; `where` are the other fields of Result (axis, judge, model, wins, n …)."""
    level = None if estimate.interval is None else estimate.level
    fields = {"n": estimate.n, "clusters": estimate.clusters, "level": level, "method": estimate.method, **where}
    return Result(metric=metric, value=estimate.value, interval=estimate.interval, **fields)


def results_document(results: Iterable[Result]) -> dict[str, Any]:
    """What results.json holds: `{schema: 1, results: [...]}`, every field of every row, None for absent."""
    return {"schema": SCHEMA, "results": [asdict(item) for item in results]}


def write_results(path: Path, results: Iterable[Result]) -> None:
    write_json(path, results_document(results))


def read_results(path: Path) -> list[Result]:
    """The rows of a results.json; BadInput with the field at fault."""
    found = from_dict(_File, read_json(path), path=path)
    if found.schema != SCHEMA:
        fix = "write it again with this version of ayni"
        raise BadInput(f"schema {found.schema} is not {SCHEMA}", path=path, field="schema", fix=fix)
    return list(found.results)
