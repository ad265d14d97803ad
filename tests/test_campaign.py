"""recipes/campaign.yaml at a size of seconds: both rounds run, are reused, and any of its models says who made it;
killed at a random moment (`make torture`: at 30) it ends at the same bytes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_stages import contents

from ayni.evaluate.results import read_results
from ayni.files import read_json
from ayni.rollout.store import read_groups
from ayni.runs.lineage import lineage
from ayni.runs.pipeline import run_recipe
from ayni.runs.reading import read_metrics
from ayni.runs.status import stage_directories
from ayni.seeds import rng

KILLS = int(os.environ.get("AYNI_KILLS", "1"))
CAMPAIGN = Path(__file__).parent.parent / "recipes" / "campaign.yaml"
SMALL = f"""\
extends: {CAMPAIGN}
name: small
rounds:
  count: 2
  each:
    comparisons{{n}}: {{limit: 60, max_tokens: 16, pairs_per_prompt: 1, dtype: fp32}}
    helpfulness{{n}}: {{start_answers: 8, max_tokens: 16, dtype: fp32}}
    safety{{n}}: {{start_answers: 8, max_tokens: 16, dtype: fp32}}
    samples{{n}}:
      {{limit: 24, n: 2, tried_prompts: 6, threshold: 0, max_tokens: 16, finished_only: false, dtype: fp32}}
    talks{{n}}: {{limit: 6, n: 2, max_tokens: 16, finished_only: false, dtype: fp32}}
    ghost{{n}}: {{rounds: [2], limit: 16, cuts: 2, max_tokens: 96, dtype: fp32}}
    v{{n}}: {{dtype: fp32}}
    v{{n}}-ppo:
      {{iterations: 2, batch_size: 16, mini_batch: 8, critic_warmup: 1, snapshot_every: 1, threshold: 0, max_tokens: 16,
        dtype: fp32}}
    gold{{n}}: {{limit: 12, threshold: 0, max_tokens: 16, dtype: fp32}}
    random{{n}}: {{threshold: 0, max_tokens: 16, finished_only: false, dtype: fp32}}
    v{{n}}-random: {{dtype: fp32}}
    v{{n}}-more-sft: {{dtype: fp32}}
    evaluate{{n}}-random: {{limit: 12, max_tokens: 16, dtype: fp32}}
    evaluate{{n}}-more-sft: {{limit: 12, max_tokens: 16, dtype: fp32}}
    evaluate{{n}}: {{limit: 12, max_tokens: 16, dtype: fp32}}
    evaluate{{n}}-ppo: {{limit: 12, max_tokens: 16, dtype: fp32}}
    perplexity{{n}}: {{dtype: fp32}}
    persistence{{n}}: {{conversations: 4, attention: 2, max_tokens: 8, dtype: fp32}}
    examine{{n}}: {{max_tokens: 4, fact_answers: 2, dtype: fp32}}
    content{{n}}: {{max_tokens: 4, fact_answers: 2, dtype: fp32}}
    redteam{{n}}: {{max_tokens: 4, dtype: fp32}}
stages:
  village: {{words: 30000, demonstrations: 200, exercises: 60, prompts: 200, obeying: 60, heldout_demonstrations: 20}}
  tokenizer: {{vocab_size: 400}}
  base: {{dim: 16, layers: 1, heads: 2, kv_heads: 1, hidden: 32, tokens: 20000, dtype: fp32}}
  sft: {{dtype: fp32}}
"""


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("campaign")
    (folder / "small.yaml").write_text(SMALL)
    run_recipe(folder / "small.yaml", folder / "run", quiet=True)
    return folder / "run"


def test_the_same_command_again_has_nothing_to_do(campaign: Path) -> None:
    again = run_recipe(campaign.parent / "small.yaml", campaign, quiet=True)
    assert {stage["state"] for stage in again["stages"]} == {"reused"}


def test_a_third_round_goes_on_from_two(campaign: Path) -> None:
    planned = run_recipe(campaign.parent / "small.yaml", campaign, ["rounds.count=3"], dry_run=True, quiet=True)
    states = {stage["name"]: stage["state"] for stage in planned["stages"]}
    assert {states[name] for name in ("samples1", "samples2", "v2", "evaluate2")} == {"reused"}
    assert states["comparisons3"] == "pending"
    assert {"v3", "v3-ppo"} <= states.keys()
    assert "v2-ppo" not in states


def test_who_made_the_last_model(campaign: Path) -> None:
    steps = lineage(campaign / "stages" / stage_directories(campaign)["v2-ppo"].name)
    assert all(step.sound for step in steps)
    assert [step.name for step in steps if step.kind == "reject"] == ["samples1", "talks1", "samples2", "talks2"]
    names = {step.name for step in steps}
    assert {"comparisons1", "comparisons2", "helpfulness2", "safety2", "v1", "v2"} <= names
    assert not any(name.startswith(("evaluate", "examine")) for name in names)


def test_the_second_round_keeps_the_best_of_both(campaign: Path) -> None:
    where = stage_directories(campaign)
    pool = {group[0].prompt_id for n in (1, 2) for group in read_groups(where[f"samples{n}"] / "samples.jsonl")}
    assert len((where["samples2"] / "records.jsonl").read_text().splitlines()) == len(pool)
    before = {group[0].prompt_id for group in read_groups(where["comparisons1"] / "samples-0.jsonl")}
    now = {group[0].prompt_id for group in read_groups(where["comparisons2"] / "samples-0.jsonl")}
    assert not before & now  # nobody judges a prompt twice


def learnt(stage: Path) -> set[Path]:
    """The files a stage was trained on."""
    return {Path(given["path"]) for given in read_json(stage / "inputs.json")["inputs"]["data"]}


def test_the_last_round_learns_to_keep_an_instruction_too(campaign: Path) -> None:
    """In the recipe from V3 on; here in the second of two rounds."""
    where = stage_directories(campaign)
    read = {name: {path.parent for path in learnt(where[name])} for name in ("v1", "v2")}
    both = {where["village"]}
    assert read["v1"] - both == {where["samples1"], where["talks1"]}
    assert read["v2"] - both == {where["samples2"], where["talks2"], where["ghost2"]}
    asked = read_json(where["ghost2"] / "inputs.json")["inputs"]["model"]
    assert [Path(given["path"]).parent for given in asked] == [where["v1"]]
    assert any(row.metric == "kept_gain" for row in read_results(where["persistence2"] / "results.json"))


def test_gold_stands_beside_the_reward_along_ppo(campaign: Path) -> None:
    lines = read_metrics(stage_directories(campaign)["gold2"] / "metrics.jsonl")
    assert [line["step"] for line in lines] == [0, 1, 2]
    assert all({"proxy", "gold"} <= line.keys() for line in lines)


def test_every_version_is_compared_with_sft(campaign: Path) -> None:
    rows = read_results(campaign / "results.json")
    compared = {row.model for row in rows if row.metric == "win_rate" and row.against == "sft"}
    assert compared == {"v1", "v2", "v2-ppo"}
    tried = {row.metric for row in rows if row.model == "v1" and row.metric.startswith("best_of")}
    assert tried == {"best_of_2:0.8", "best_of_2:1", "best_of_2:1.2"}
    assert read_json(campaign / "status.json")["status"] == "done"


def ran(directory: Path, seconds: float | None = None) -> bool:
    """Runs the campaign to its end, or kills it after so many seconds; whether it came to its end."""
    # the same threads as the whole one had: bits are promised for a number of them
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    command = [sys.executable, "-m", "ayni", "run", "small.yaml", "--out", directory.name, "--quiet"]
    process = subprocess.Popen(command, cwd=directory.parent, env=environment)
    try:
        assert process.wait(seconds) == 0
    except subprocess.TimeoutExpired:
        process.kill()  # SIGKILL: no handler, no `finally`, no flush
        process.wait()
        return False
    return True


def left(run: Path) -> dict[str, str]:
    """Every file of its stages but those that say where the inputs lie."""
    return {name: digest for name, digest in contents(run / "stages").items() if not name.endswith("inputs.json")}


def test_killed_anywhere_ends_the_same(campaign: Path) -> None:
    """Weights, samples and the numbers of the report."""
    draw, kills, number = rng("campaign", KILLS), 0, 0
    while kills < KILLS:
        if ran(campaign.parent / f"killed-{number}", float(draw.uniform(2, 20))):
            number += 1  # it came to its end before the kill, and the next one starts over
        else:
            kills += 1
    ran(campaign.parent / f"killed-{number}")
    for killed in campaign.parent.glob("killed-*"):
        assert left(killed) == left(campaign)
        assert read_results(killed / "results.json") == read_results(campaign / "results.json")


def test_the_controls_differ_in_one_thing(campaign: Path) -> None:
    """In who chose among the answers; in what the computing was spent on."""
    where = stage_directories(campaign)
    chosen, by_chance = (where[name] / "records.jsonl" for name in ("samples2", "random2"))
    assert learnt(where["v2"]) - learnt(where["v2-random"]) == {chosen}
    assert learnt(where["v2-random"]) - learnt(where["v2"]) == {by_chance}
    assert learnt(where["v2-more-sft"]) == learnt(where["sft"])


def test_the_controls_are_as_large_and_as_costly(campaign: Path) -> None:
    where = stage_directories(campaign)
    chosen, by_chance = ((where[name] / "records.jsonl").read_text().splitlines() for name in ("samples2", "random2"))
    # one prompt more may be asked by the control's own draw
    assert 0 <= len(by_chance) - len(chosen) <= 1
    rows = read_results(campaign / "results.json")
    computed = {row.model: row.value or 0.0 for row in rows if row.metric == "compute"}
    rounds = [
        f"{name}{n}" for name in ("comparisons", "helpfulness", "safety", "samples", "talks", "v") for n in (1, 2)
    ]
    campaigned = sum(computed[name] for name in [*rounds, "ghost2", "v2-ppo"])
    assert computed["v2-more-sft"] == pytest.approx(campaigned, rel=0.1)
    against = {(row.model, row.against) for row in rows if row.metric == "win_rate"}
    assert {("v2", "v2-random"), ("v2-ppo", "v2-more-sft")} <= against
