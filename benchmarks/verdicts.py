"""What the studies said: every claim of a recipe over the villages it was run on, from docs/results/NAME-seedN.json.

Pooled: the mean over the villages, half-widths of their clustered intervals in quadrature, for each village has people,
held-out topics and models of its own; that some topics are held out in two of them is not counted. A study is one
recipe: what another made is not pooled with it, and where it has changed since, the commit of the results is named.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ayni.errors import BadInput
from ayni.runs.claims import verdict

FILE = re.compile(r"(.+)-seed(\d+)\.json")
Row = Mapping[str, Any]


def found(results: Path) -> dict[str, dict[int, Row]]:
    """Study → seed of the village → its file. BadInput where the files of one study are of different recipes."""
    studies: dict[str, dict[int, Row]] = {}
    for path in sorted(results.glob("*-seed*.json")):
        document = json.loads(path.read_text(encoding="utf-8"))
        if "claims" in document and (name := FILE.fullmatch(path.name)):
            of = studies.setdefault(name[1], {})
            of[int(name[2])] = document
            if len({_asked(each) for each in of.values()}) > 1:
                what = "another recipe made it than the other villages' results, or claimed something else"
                raise BadInput(what, path=path, fix="run them all at one commit, or give the file another name")
    return studies


def _asked(document: Row) -> tuple[Any, ...]:
    """What files of one study have in common: the recipe, and what it claims."""
    return recipe_of(document), *((claim["says"], claim["above"], claim["below"]) for claim in document["claims"])


def recipe_of(document: Row) -> str | None:
    """The fingerprint of the recipe that made it."""
    recipe: str | None = document.get("made", {}).get("recipe")
    return recipe


def pooled(claims: Sequence[Row]) -> tuple[float, tuple[float, float]] | None:
    """One claim of several villages; None where none of them has an interval."""
    known = [(claim["value"], *claim["interval"]) for claim in claims if claim["interval"] is not None]
    if not known:
        return None
    value = sum(each for each, _, _ in known) / len(known)
    half = sum(((high - low) / 2) ** 2 for _, low, high in known) ** 0.5 / len(known)
    # of a single village the interval as it stands, which need not lie evenly around its number
    return value, (known[0][1:] if len(known) == 1 else (value - half, value + half))


def table(studies: Mapping[str, Mapping[int, Row]], recipes: Mapping[str, str]) -> str:
    """`recipes`: the fingerprints of the studies as they are now."""
    head = ["| study | claim | asked | measured | verdict |", "|---|---|---|---|---|"]
    return "\n".join([*head, *lines(studies, recipes), "", in_all(studies)])


def in_all(studies: Mapping[str, Mapping[int, Row]]) -> str:
    """Which studies passed with every claim, which failed with any."""
    verdicts = {name: [verdict_of(claims) for claims in each_claim(by_seed)] for name, by_seed in studies.items()}
    passed = [name for name, each in verdicts.items() if {*each} == {"PASS"}]
    failed = [name for name, each in verdicts.items() if "FAIL" in each]
    open_ = [name for name in verdicts if name not in (*passed, *failed)]
    return "  \n".join(
        f"{what}, {len(names)} of {len(verdicts)}: {', '.join(names)}."
        for what, names in (
            ("PASS with every claim", passed),
            ("FAIL with one claim or more", failed),
            ("Undecided in part", open_),
        )
        if names
    )


def lines(studies: Mapping[str, Mapping[int, Row]], recipes: Mapping[str, str]) -> Iterator[str]:
    for name, by_seed in studies.items():
        files = ", ".join(f"[{seed}](results/{name}-seed{seed}.json)" for seed in by_seed)
        first = f"{name}, village {files}" if len(by_seed) == 1 else f"{name}, villages {files}"
        if (made := recipe_of(next(iter(by_seed.values())))) is not None and made != recipes.get(name):
            first += f", at {', '.join(dict.fromkeys(each['made']['commit'] for each in by_seed.values()))}"
        for claims in each_claim(by_seed):
            said = f"{measured(claims)}{apart(dict(zip(by_seed, claims, strict=True)))}"
            yield f"| {first} | {claims[0]['says']} | {asked(claims[0])} | {said} |"
            first = ""


def each_claim(by_seed: Mapping[int, Row]) -> Iterator[tuple[Row, ...]]:
    """A study's claims, each as it came out in every village."""
    return zip(*(document["claims"] for document in by_seed.values()), strict=True)


def verdict_of(claims: Sequence[Row]) -> str:
    whole = pooled(claims)
    return "UNDECIDED" if whole is None else verdict(whole[1], claims[0]["above"], claims[0]["below"])


def apart(claims: Mapping[int, Row]) -> str:
    """Which of several villages say FAIL: what pooling must not hide."""
    failed = [str(seed) for seed, claim in claims.items() if verdict_of([claim]) == "FAIL"]
    return f" ({', '.join(failed)}: FAIL)" if failed and len(claims) > 1 else ""


def asked(claim: Row) -> str:
    return f"above {claim['above']:g}" if claim["above"] is not None else f"below {claim['below']:g}"


def measured(claims: Sequence[Row]) -> str:
    """The number, each village's where there are several, and what follows."""
    whole = pooled(claims)
    if whole is None:
        return f"{', '.join(dict.fromkeys(claim['why'] for claim in claims))} | UNDECIDED"
    value, (low, high) = whole
    each = f" ({numbers(claim['value'] for claim in claims)})" if len(claims) > 1 else ""
    return f"{value:.3f} [{low:.3f}, {high:.3f}]{each} | {verdict_of(claims)}"


def numbers(values: Iterable[float | None]) -> str:
    return " / ".join("–" if value is None else f"{value:.3f}" for value in values)
