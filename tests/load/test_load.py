"""32 people × 200 judgements over HTTP: nothing lost while the server is killed, its disk full, its database restarted
and 2,000 sockets say half a request; and how long people wait when only the sockets are in the way, or nothing is.

`make test-load`; alone on the machine, some minutes. With AYNI_RESULTS=1 it writes docs/results/annotate-load.json.

How fast people judge: a comparison of the paper has a prompt of 31 tokens and two answers of 234 (Table 6), about 375
words; at 238 words a minute (Brysbaert 2019, silent reading of English) that is 94 seconds. `PACED` pauses 1 second on
average, so its 32 people press as hard as some 2,000 who read; `HURRIED` never pauses.
"""

from __future__ import annotations

import json
import os
import platform
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from crowd import Outcome, Plan, load
from sqlalchemy import make_url

RESULTS = Path(__file__).parents[2] / "docs" / "results" / "annotate-load.json"
KILLED = Plan(people=32, each=200, kills=20, full_disks=2, restarts=2, idle=2000, doubles=0.2)
HURRIED = Plan(people=32, each=200)
PACED = Plan(people=32, each=60, pause=1.0)
BESIDE = replace(PACED, idle=2000)  # for a minute
LIMIT, LIMIT_BESIDE = 0.250, 0.500  # seconds that 95 of 100 judgements may wait, by issue


@pytest.fixture(scope="module")
def results() -> Iterator[dict[str, Any]]:
    """Gathers the numbers; prints them, and keeps them where that is asked for."""
    packages = ("starlette", "uvicorn", "SQLAlchemy", "psycopg")
    versions = {"python": platform.python_version(), "sqlite": sqlite3.sqlite_version}
    gathered: dict[str, Any] = {
        "date": date.today().isoformat(),
        "machine": f"{platform.system()} {platform.machine()}, {len(os.sched_getaffinity(0))} cores",
        "versions": versions | {name: version(name) for name in packages},
        "runs": [],
    }
    yield gathered
    text = json.dumps(gathered, indent=2) + "\n"
    print(f"\n{text}")
    if os.environ.get("AYNI_RESULTS"):
        RESULTS.write_text(text, encoding="utf-8")


def database(address: str, results: dict[str, Any]) -> str:
    """Its name; notes the version of a server."""
    url = make_url(address)
    if url.get_backend_name() == "sqlite":
        return "sqlite"
    with psycopg.connect(url.set(drivername="postgresql").render_as_string(hide_password=False)) as connection:
        results["versions"]["postgresql"] = connection.info.parameter_status("server_version")
    return "postgresql"


def percentiles(seconds: list[float]) -> dict[str, float]:
    """Milliseconds."""
    return {f"p{p}": round(1000 * float(np.percentile(seconds, p)), 1) for p in (50, 95, 99)}


def note(results: dict[str, Any], address: str, plan: Plan, outcome: Outcome, lost: list[str]) -> dict[str, Any]:
    judge = [wait for person in outcome.people for wait in person.judge_waits]
    page = [wait for person in outcome.people for wait in person.page_waits]
    run = {
        "database": database(address, results),
        **asdict(plan),
        "seconds": round(outcome.seconds, 1),
        "acknowledged": outcome.saved,
        "kills": outcome.kills,
        "sent_twice": sum(person.twice for person in outcome.people),
        "sent_again_after_no_answer": sum(person.browser.retries for person in outcome.people),
        "lost_doubled_or_changed": len(lost),
        "post_judge_ms": percentiles(judge),
        "get_judge_ms": percentiles(page),
    }
    results["runs"].append(run)
    print(f"\n{json.dumps(run)}", flush=True)
    return run


def test_nothing_acknowledged_is_lost_or_doubled(
    new_address: Callable[[], str], tmp_path: Path, results: dict[str, Any]
) -> None:
    address = new_address()
    outcome, lost = load(address, KILLED, tmp_path / "log", getattr(new_address, "restart", None))
    note(results, address, KILLED, outcome, lost)
    assert lost == []
    assert (outcome.saved, outcome.kills) == (32 * 200, 20)
    assert sum(person.twice for person in outcome.people) >= 0.17 * 32 * 200


@pytest.mark.parametrize("plan", [PACED, HURRIED, BESIDE], ids=["paced", "hurried", "beside idle sockets"])
def test_nobody_waits_long(new_address: Callable[[], str], tmp_path: Path, results: dict[str, Any], plan: Plan) -> None:
    address = new_address()
    outcome, lost = load(address, plan, tmp_path / "log")
    run = note(results, address, plan, outcome, lost)
    assert lost == []
    assert run["post_judge_ms"]["p95"] < 1000 * (LIMIT_BESIDE if plan.idle else LIMIT)
    assert (tmp_path / "log").stat().st_size < 10_000
