"""lm-evaluation-harness, for real: a tiny task of ours through a model that `ayni export` wrote (make test-harness)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_models import build, small_tokenizer

from ayni import cli
from ayni.evaluate.truthfulness import continued
from ayni.model.role import Role
from ayni.model_directory import load_model, save_model
from ayni.train.reference import logprob_sums

pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed: make test-harness")

TASK = """\
task: ayni_tiny
dataset_path: json
dataset_kwargs: {{data_files: {{test: "{file}"}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""
ROWS = [("the village by", "the river", "the baker"), ("the baker of", "the village", "the river"), ("by", "of", "the")]


def test_the_harness_says_what_our_own_log_probs_say(tmp_path: Path) -> None:
    model, words = build(), small_tokenizer()
    model.tok_embeddings.weight.data.mul_(20)
    save_model(tmp_path / "model", model, words)
    assert cli.run(["export", str(tmp_path / "model"), str(tmp_path / "hf"), "--format", "hf"]) == 0
    rows = [{"question": q, "choices": list(answers), "answer": 0} for q, *answers in ROWS]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "ayni_tiny.yaml").write_text(TASK.format(file=tmp_path / "rows.jsonl"))
    command = [sys.executable, "-m", "lm_eval", "--model", "hf", "--tasks", "ayni_tiny", "--device", "cpu"]
    command += ["--model_args", f"pretrained={tmp_path / 'hf'},dtype=float32,add_bos_token=True"]
    command += ["--include_path", str(tmp_path), "--output_path", str(tmp_path / "out"), "--batch_size", "1"]
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path / "cache")}
    done = subprocess.run(command, capture_output=True, text=True, env=offline, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    (file,) = (tmp_path / "out").rglob("results_*.json")
    found = json.loads(file.read_text())["results"]["ayni_tiny"]["acc,none"]
    role = Role(load_model(tmp_path / "model")[0])
    texts = [continued(question, f" {answer}", words) for question, *answers in ROWS for answer in answers]
    first, second = logprob_sums(role, texts, 500).view(-1, 2).unbind(1)
    assert found == pytest.approx(float((first > second).float().mean()))
