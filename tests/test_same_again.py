"""The same recipe in another process, from another directory and under another salt of Python's hash()."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_stages import comparisons, contents, prepare

from ayni.files import write_jsonl
from ayni.records import to_dict

RECIPE = """\
name: same
seed: 3
stages:
  week:
    kind: collect
    model: policy
    prompts: [village.jsonl]
    pairs_per_prompt: 3
    heldout_share: 0.3
    max_tokens: 10
    dtype: fp32
  first: &reward
    kind: reward
    model: policy
    data: [comparisons.jsonl]
    heldout: [asked-often.jsonl]
    task: safety
    other_share: 0.5
    safety_weight: 1.0
    batch_size: 8
    epochs: 1
    optimiser: {lr: 1e-2}
    dtype: fp32
  second:
    <<: *reward
    data: [comparisons.jsonl, week]
    against: helpful
    epochs: 3
  ppo:
    model: policy
    reward_helpfulness: first
    reward_safety: second
    prompts: [prompts.jsonl]
    iterations: 2
    batch_size: 8
    mini_batch: 4
    max_tokens: 10
    dtype: fp32
  evaluate:
    model: ppo
    against: policy
    prompts: [village.jsonl]
    texts: [corpus.jsonl]
    max_tokens: 16
    dtype: fp32
"""


@pytest.mark.parametrize("threads", ["1", "2"])
def test_another_process_directory_and_hash_seed_give_the_same_results(tmp_path: Path, threads: str) -> None:
    prepare(tmp_path)
    write_jsonl(tmp_path / "asked-often.jsonl", map(to_dict, comparisons(150, seed=8)))
    (tmp_path / "same.yaml").write_text(RECIPE)
    (tmp_path / "elsewhere").mkdir()
    found = []
    for salt, start, recipe in (("1", tmp_path, "same.yaml"), ("2", tmp_path / "elsewhere", "../same.yaml")):
        out = tmp_path / f"run-{salt}"
        command = [sys.executable, "-m", "ayni", "run", recipe, "--out", str(out), "--quiet"]
        house = str(Path(__file__).parent.parent)
        environment = {**os.environ, "PYTHONHASHSEED": salt, "PYTHONPATH": house, "OMP_NUM_THREADS": threads}
        subprocess.run(command, cwd=start, env=environment, check=True, capture_output=True)
        found.append(out)
    one, other = ((out / "results.json").read_bytes() for out in found)
    assert one == other
    metrics = {row["metric"] for row in json.loads(one)["results"]}
    assert {"accuracy", "accuracy_gain", "win_rate", "score", "kl", "bits_per_byte"} <= metrics
    left = [{name: digest for name, digest in contents(out / "stages").items() if not own(name)} for out in found]
    assert left[0] == left[1]


def test_nobody_asks_for_pythons_salted_hash() -> None:
    for file in sorted((Path(__file__).parent.parent / "ayni").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            asked = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "hash"
            assert not asked, f"{file}:{node.lineno}: another number in every process; hash the text, or number it"


def own(name: str) -> bool:
    """Whether a file speaks of the run itself: where its inputs lie, when judgements came in."""
    return name.endswith("inputs.json") or ".db" in name
