"""results.json: every field there, strict on the way in."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pytest

from ayni.errors import BadInput
from ayni.evaluate.results import Result, read_results, result, write_results
from ayni.maths.statistics import proportion

FIELDS = [field.name for field in fields(Result)]


def test_round_trip_with_every_field(tmp_path: Path) -> None:
    rows = [
        result("win_rate", proportion(7, 10), axis="safety", judge="gold", model="ppo", against="sft", n=12),
        Result(metric="kl", model="ppo", value=2.5),
    ]
    write_results(tmp_path / "results.json", rows)
    plain = json.loads((tmp_path / "results.json").read_text())
    assert plain["schema"] == 1
    assert list(plain["results"][0]) == FIELDS
    assert FIELDS[0] == "metric"
    assert len(FIELDS) == 16
    assert plain["results"][0]["n"] == 12
    assert len(plain["results"][0]["interval"]) == 2
    assert plain["results"][1]["interval"] is None
    assert read_results(tmp_path / "results.json") == rows


def test_nothing_counted_has_no_level() -> None:
    row = result("accuracy", proportion(0, 0))
    assert (row.value, row.interval, row.level, row.n) == (None, None, None, 0)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not JSON"),
        ('{"schema": 1, "schema": 1, "results": []}', "twice"),
        ('{"schema": 2, "results": []}', "schema 2 is not 1"),
        ('{"schema": 1}', "results"),
        ('{"schema": 1, "results": [{"metric": "kl", "colour": 3}]}', "colour"),
        ('{"schema": 1, "results": [{"metric": "kl", "value": "2"}]}', "value"),
        ('{"schema": 1, "results": [{"metric": "kl", "interval": [1]}]}', "interval"),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(BadInput, match=says) as caught:
        read_results(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
