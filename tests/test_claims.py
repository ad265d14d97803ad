"""Claims of a recipe: what passes, what fails, what stays open; and that a recipe with them is read strictly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ayni.config import parse_config
from ayni.errors import BadInput
from ayni.evaluate.results import Result
from ayni.runs.claims import Claim, judged
from ayni.runs.recipe import read_recipe

ROWS = [
    Result("gain", axis="a", model="new", against="old", value=0.1, interval=(0.04, 0.16)),
    Result("gain", axis="b", model="new", against="old", value=0.1, interval=(-0.01, 0.21)),
    Result("few", value=0.5),
    Result("none"),
    Result("clear", value=0.9, interval=(0.87, 0.93)),
    Result("unsure", value=0.6, interval=(0.56, 0.64)),
]


def claim(metric: str, **more: Any) -> Claim:
    number = {"metric": metric} | ({"axis": more.pop("axis")} if "axis" in more else {})
    return parse_config(Claim, {"says": "it does", "number": number, **more})


@pytest.mark.parametrize(
    ("given", "verdict"),
    [
        (claim("gain", axis="a", above=0), "PASS"),
        (claim("gain", axis="a", below=0), "FAIL"),
        (claim("gain", axis="a", below=0.2), "PASS"),
        (claim("gain", axis="a", above=0.2), "FAIL"),
        (claim("gain", axis="a", above=0.1), "UNDECIDED"),
        (claim("gain", axis="b", above=0), "UNDECIDED"),
        (claim("clear", minus={"metric": "unsure"}, above=0.24), "PASS"),  # 0.3 ± 0.05
        (claim("clear", minus={"metric": "unsure"}, above=0.26), "UNDECIDED"),
        (claim("unsure", minus={"metric": "clear"}, above=-0.2), "FAIL"),
        (claim("clear", minus={"metric": "unsure"}, times=0.5, above=0.54), "PASS"),
        (claim("clear", minus={"metric": "unsure"}, times=0.5, above=0.57), "UNDECIDED"),
    ],
)
def test_the_whole_interval_must_lie_on_one_side(given: Claim, verdict: str) -> None:
    assert [each.verdict for each in judged([given], ROWS)] == [verdict]


def test_a_difference_has_its_halves_in_quadrature() -> None:
    (found,) = judged([claim("clear", minus={"metric": "unsure"}, above=0)], ROWS)
    assert found.value == pytest.approx(0.3)
    assert found.interval == pytest.approx((0.25, 0.35))  # √(0.03² + 0.04²)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (claim("gone", above=0), "nothing measured gone"),
        (claim("gain", above=0), "2 numbers are meant by gain"),
        (claim("none", above=0), "nothing was counted"),
        (claim("few", above=0), "too few for an interval"),
        (claim("clear", minus={"metric": "few"}, above=0), "too few for an interval"),
        (claim("clear", minus={"metric": "gone"}, above=0), "nothing measured gone"),
    ],
)
def test_without_a_number_or_an_interval_nothing_is_decided(given: Claim, why: str) -> None:
    (found,) = judged([given], ROWS)
    assert (found.verdict, found.why) == ("UNDECIDED", why)
    assert why in str(found)


def test_a_verdict_is_one_line() -> None:
    (found,) = judged([claim("gain", axis="a", above=0, paper="Table 8")], ROWS)
    assert str(found) == "PASS       it does (Table 8): 0.1 [0.04, 0.16], asked above 0"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{says: it, number: {metric: a}}", "claims.0: give either above or below"),
        ("{says: it, number: {metric: a}, above: 0, below: 1}", "claims.0: give either above or below"),
        ("{says: it, number: {axis: a}, above: 0}", "claims.0.number.metric: Field required"),
        ("{says: it, number: {metric: a}, above: 0, oops: 1}", "claims.0.oops: unknown key"),
    ],
)
def test_a_recipes_claims_are_read_strictly(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.yaml").write_text(f"claims:\n  - {text}\nstages:\n  village: {{}}\n")
    with pytest.raises(BadInput) as caught:
        read_recipe(tmp_path / "a.yaml")
    assert f"a.yaml:2: {message}" in str(caught.value)


def test_claims_are_of_their_recipe_alone(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("claims:\n  - {says: it, number: {metric: a}, above: 0}\nstages:\n  village: {}\n")
    (tmp_path / "b.yaml").write_text("extends: a.yaml\nstages:\n  village: {words: 9}\n")
    (said,) = read_recipe(tmp_path / "a.yaml").claims
    assert said.number.metric == "a"
    (written,) = read_recipe(tmp_path / "a.yaml").resolved()["claims"]
    assert written == {"says": "it", "paper": "", "number": {"metric": "a"}, "above": 0.0}
    assert read_recipe(tmp_path / "b.yaml").claims == ()
