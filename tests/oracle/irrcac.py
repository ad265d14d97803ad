"""Writes irrcac.json: random tables of ratings, and what the Python package irrCAC says of them.

irrCAC 0.4.4 wants scipy 1.12.0 and so numpy 1; ayni wants numpy 2. They cannot live in one environment, so its answers
are kept: `python -m venv V && V/bin/pip install irrCAC==0.4.4 && V/bin/python tests/oracle/irrcac.py`.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas
from irrCAC.raw import CAC

SIZES = ((8, 2, 2), (12, 4, 5), (15, 5, 4), (30, 3, 8), (40, 6, 8), (25, 2, 3))  # items, annotators, categories
MISSING = (0.0, 0.3)
KEPT = ("coefficient_value", "se", "confidence_interval", "pa", "pe")


def table(draw: np.random.Generator, items: int, annotators: int, categories: int, missing: float) -> np.ndarray:
    """Noisy ratings of a common truth, every category used."""
    truth = draw.uniform(0, categories, items)[:, None]
    noisy = np.clip(np.floor(truth + draw.normal(0, 0.8, (items, annotators))), 0, categories - 1) + 1
    noisy[:categories, 0] = np.arange(categories) + 1
    gone = draw.random(noisy.shape) < missing
    gone[:categories, 0] = False
    return np.where(gone, np.nan, noisy)


def asked(ratings: np.ndarray, coefficient: str, weights: str) -> dict[str, object]:
    found = getattr(CAC(pandas.DataFrame(ratings), weights=weights, digits=15), coefficient)()["est"]
    numbers = {name: np.asarray(found[name], float).tolist() for name in KEPT}
    return {"coefficient": coefficient, "weights": weights, **numbers}


def main() -> None:
    draw = np.random.default_rng(20261121)
    rows = []
    for size in SIZES:
        for missing in MISSING:
            ratings = table(draw, *size, missing)
            answers = [asked(ratings, "gwet", name) for name in ("identity", "linear", "quadratic", "ordinal")]
            answers += [asked(ratings, "krippendorff", name) for name in ("identity", "quadratic", "ratio")]
            shown = [[None if np.isnan(x) else int(x) for x in row] for row in ratings]
            rows.append({"ratings": shown, "answers": answers})
    lines = ",\n".join(json.dumps(row) for row in rows)
    Path(__file__).with_suffix(".json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
