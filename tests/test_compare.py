"""Methods beside each other: a table from hand-made runs, the page, and recipes/compare.yaml at a size of seconds."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_models import refused
from test_cli import call

from ayni.evaluate.items import Item
from ayni.evaluate.results import Result, read_results, write_results
from ayni.files import write_json, write_jsonl
from ayni.maths.clustered import clustered_mean, clustered_share
from ayni.records import to_dict
from ayni.report.compared import render, sentences
from ayni.report.planes import spread
from ayni.runs.code_lines import imported, lines_of, own_lines
from ayni.runs.comparison import averaged, compare_runs
from ayni.runs.pipeline import run_recipe
from ayni.runs.sealing import seal_directory

METHODS = {"random": 0.5, "dpo": 0.8, "ppo": 0.75, "worse": 0.2, "same": 0.5}  # how often they beat the start
PROMPTS, CLUSTERS = 120, 24


def wins(method: str, seed: int) -> list[float]:
    """The method's score on every prompt, evenly over the clusters."""
    share = METHODS[method] + 0.02 * (seed - 1)
    return [float((7 * i + 3 * seed) % PROMPTS < share * PROMPTS) for i in range(PROMPTS)]


def stage(
    run: Path, name: str, kind: str, inputs: dict[str, list[str]], seconds: float = 1.0, seed: int = 1, **config: Any
) -> Path:
    directory = run / "stages" / f"01-{name}-00000000"
    directory.mkdir(parents=True, exist_ok=True)
    given = {key: [{"path": path, "sha256": f"{run.name}:{path}"} for path in paths] for key, paths in inputs.items()}
    seal = {"hash": "0", "kind": kind, "version": 1, "seed": seed}
    write_json(directory / "inputs.json", {**seal, "inputs": given})
    if kind in ("dpo", "sft", "choose"):
        write_json(directory / "compute.json", {"forward": 3_000_000, "backward": 1_000_000, "flops": 5 * 10**12})
    if kind == "choose":
        tries = [Path(path).parent.name.removeprefix("01-").removesuffix("-00000000") for path in inputs["models"]]
        write_json(directory / "chosen.json", {"chosen": tries[1], "of": tries})
        rows = [Result("preferred_gain", model=tries[1], against=tries[0], value=0.1, interval=(-0.01, 0.2))]
        write_results(directory / "results.json", rows)
    seal_directory(directory, seconds=seconds, peak_memory=300 * 2**20, **{**seal, "config": config})  # type: ignore[arg-type]
    return directory


def make_run(run: Path, seed: int = 1, methods: tuple[str, ...] = tuple(METHODS), start: str = "sft") -> Path:
    """A finished run as `methods` in a recipe would leave it."""
    for name in ("start", *methods):
        if name != "start":
            tries = [str(stage(run, f"{name}-{t}", "dpo", {}, seconds=10.0 * t) / "model") for t in (1, 2)]
            model = str(stage(run, name, "choose", {"models": tries}) / "model")
            judged = run / "stages" / f"01-{name}-judged-00000000"
            judged.mkdir(exist_ok=True)
            lines = [
                {
                    "prompt_id": f"{axis}-{i}",
                    "cluster": f"c{i % CLUSTERS}",
                    "axis": axis,
                    "category": "x",
                    "score": score,
                    "model": name,
                    "against": start,
                    "judge": "gold",
                }
                for axis in ("helpfulness", "safety")
                for i, score in enumerate(wins(name, seed))
            ]
            write_jsonl(judged / "outcomes.jsonl", [*lines, {**lines[0], "judge": "people", "score": 0.0}])
            item = Item("refusal_rate", 1.0, "b", "c", axis="borderline", judge="gold", model=name)
            items = [replace(item, value=float(i < 3), id=f"b{i}", cluster=f"c{i}") for i in range(10)]
            write_jsonl(judged / "items.jsonl", map(to_dict, [*items, replace(item, axis="unsafe", id="u")]))
            where: dict[str, Any] = {"model": name, "split": "test", "n": 50, "clusters": 10}
            rows = [
                Result("kl", against=start, value=1.0 * seed, interval=(0.7 * seed, 1.3 * seed), **where),
                Result("answer_tokens", axis="helpfulness", value=20.0, interval=(18.0, 22.0), **where),
                Result("self_bleu", axis="helpfulness", value=0.4, **where),
                Result("answer_tokens", axis="safety", value=99.0, **where),
            ]
            write_results(judged / "results.json", rows)
            inputs = {"model": [model], "against": [start], "prompts": ["p"]}
            stage(run, f"{name}-judged", "evaluate", inputs, seed=seed, final=True)
            asked = run / "stages" / f"01-{name}-asked-00000000"
            asked.mkdir(exist_ok=True)
            content = [
                Item("content", METHODS[name], f"q{i}", f"c{i % 7}", part="x", judge="gold", model=name)
                for i in range(21)
            ]
            write_jsonl(asked / "items.jsonl", map(to_dict, content))
            stage(run, f"{name}-asked", "examine", {"model": [model], "prompts": ["p"]}, seed=seed, final=True)
    names = [path.name for path in sorted((run / "stages").iterdir())]
    entries = [{"name": name[3:-9], "directory": f"stages/{name}"} for name in names]
    write_json(run / "status.json", {"run": run.name, "status": "done", "stages": entries})
    return run


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two finished runs, of two seeds in two villages."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in (1, 2):
        make_run(folder / f"compare-{seed}", seed)
    return folder


@pytest.fixture
def runs(two: Path, tmp_path: Path) -> list[Path]:
    """Copies of them, to change."""
    shutil.copytree(two, tmp_path / "runs")
    return sorted((tmp_path / "runs").iterdir())


def test_the_table_by_hand(runs: list[Path]) -> None:
    comparison = compare_runs(runs)
    assert [m.name for m in comparison.methods] == ["dpo", "ppo", "random", "same", "worse"]
    assert (comparison.start, comparison.control) == ("sft", "random")
    assert {m.name: m.verdict for m in comparison.methods} == {
        "dpo": "PASS", "ppo": "PASS", "random": None, "same": "UNDECIDED", "worse": "FAIL",
    }  # fmt: skip
    dpo = comparison.methods[0]
    scores = wins("dpo", 1) + wins("dpo", 2)
    clusters = [i % CLUSTERS for _ in (1, 2) for i in range(PROMPTS)]  # a topic is one cluster in both villages
    share = clustered_share(scores, clusters)
    assert dpo.numbers["helpfulness"] == share
    assert share.clusters == CLUSTERS
    over = [a - b for a, b in zip(scores, wins("random", 1) + wins("random", 2), strict=True)]
    assert dpo.numbers["over_control"] == clustered_mean(over, clusters)
    assert dpo.seeds == (pytest.approx(0.3), pytest.approx(0.3))
    assert dpo.value("content_over_control") == pytest.approx(0.3)
    assert dpo.value("refused") == pytest.approx(0.3)
    assert dpo.value("kl") == pytest.approx(1.5)
    kl = dpo.numbers["kl"].interval
    assert kl == pytest.approx((1.5 - (0.3**2 + 0.6**2) ** 0.5 / 2, 1.5 + (0.3**2 + 0.6**2) ** 0.5 / 2))
    assert (dpo.value("length"), dpo.value("self_bleu")) == (20, 0.4)
    assert dpo.numbers["self_bleu"].interval is None
    assert "behind_best" not in dpo.numbers
    assert comparison.methods[1].value("behind_best") == pytest.approx(-0.05)


def test_costs_are_of_the_chosen_try_and_of_all(runs: list[Path]) -> None:
    dpo = compare_runs(runs).methods[0]
    assert dpo.chosen == ("dpo-2 of 2", "dpo-2 of 2")
    assert (dpo.value("seconds"), dpo.value("seconds_of_tries")) == (20, 30)
    assert (dpo.value("forward"), dpo.value("backward")) == (3e6, 1e6)
    assert (dpo.value("flops"), dpo.value("flops_of_tries")) == (5e12, 1e13)
    assert dpo.value("memory") == 300 * 2**20
    assert dpo.value("lines") == own_lines({"dpo"})
    assert dpo.undecided_choices == 2


def test_the_same_prompts_in_two_runs_are_one_cluster(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / folder / "run", seed) for folder, seed in (("a", 1), ("b", 2))]
    dpo = compare_runs(runs).methods[0]
    assert dpo.numbers["helpfulness"].clusters == CLUSTERS
    assert dpo.numbers["kl"].interval == pytest.approx((1.5 - 0.45, 1.5 + 0.45))  # no surer than one of them


def test_parts_of_one_seed_are_joined(tmp_path: Path) -> None:
    parts = [
        make_run(tmp_path / "a" / "run", methods=("random", "dpo")),
        make_run(tmp_path / "b" / "run", methods=("dpo", "ppo")),  # the same dpo: its stages were copied
        make_run(tmp_path / "c" / "other", methods=("worse",)),
    ]
    comparison = compare_runs(parts)
    verdicts = {m.name: m.verdict for m in comparison.methods}
    assert verdicts == {"dpo": "PASS", "ppo": "PASS", "random": None, "worse": None}
    assert "over_control" not in comparison.methods[-1].numbers
    assert "No verdict on worse: random was not judged with the same seed" in " ".join(sentences(comparison))
    for change, said in (('"hash":"0"', "dpo was judged here and in another run"), ("run:sft", "another sft than")):
        where = parts[1] / "stages" / ("01-dpo-judged-00000000" if "hash" in change else "01-ppo-judged-00000000")
        for file in (where / "DONE.json", where / "inputs.json"):
            text = file.read_text().replace(": ", ":")
            file.write_text(text.replace(change, change.replace("0", "1").replace("sft", "base")))
        assert said in refused(lambda: compare_runs(parts))
        make_run(tmp_path / "b" / "run", methods=("dpo", "ppo"))


def test_a_method_that_one_run_lacks_is_named(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / "one", 1), make_run(tmp_path / "two", 2, methods=("random", "ppo"))]
    comparison = compare_runs(runs)
    assert {m.name: m.draws for m in comparison.methods} == {"dpo": 1, "ppo": 2, "random": 2, "same": 1, "worse": 1}
    assert "Judged less often than others, 2 times: dpo (1), same (1) and worse (1)." in sentences(comparison)
    assert not any("less often" in line for line in sentences(compare_runs(runs[:1])))


def test_in_plain_words(runs: list[Path]) -> None:
    said = sentences(compare_runs(runs))
    assert "PASS: dpo and ppo are more helpful than random." in said
    assert "FAIL: worse is less helpful than random." in said
    assert "UNDECIDED: same is not told from random." in said
    assert any(line.startswith("Chosen by chance: the best try of dpo, ppo, random, same and worse") for line in said)
    assert "Equal compute: all methods are within a factor of 1.25 of the median." in said
    write_json(runs[0] / "stages" / "01-dpo-2-00000000" / "compute.json", {"forward": 1, "backward": 1, "flops": 9**15})
    said = sentences(compare_runs(runs))
    assert any(
        line.startswith("Not at equal compute, more than a factor of 1.25 from the median: dpo") for line in said
    )


def test_the_page_is_alone_and_escaped(runs: list[Path]) -> None:
    for path in runs[0].rglob("*.jsonl"):
        path.write_text(path.read_text().replace('"dpo"', '"<b>dpo"'))
    comparison = compare_runs(runs[:1])
    assert "<b>dpo" in {m.name for m in comparison.methods}
    page = render(comparison)
    assert "<b>dpo" not in page
    assert re.findall(r"(?:href|src)=\"(?!#)|url\((?!#)|#0a0b", page) == []
    assert page.count("<svg") == 3
    assert "prefers-color-scheme: dark" in page
    assert page == render(comparison)


def test_the_command(runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["compare", *map(str, runs), "--out", str(tmp_path / "out")]
    code, out, _ = call(capsys, *words)
    assert code == 0
    lines = out.splitlines()
    assert lines[0].startswith("method  verdict    helpfulness")
    assert lines[1].startswith("dpo     PASS       81.2% [75.8% to 85.7%]  30.0% [")
    assert (tmp_path / "out" / "index.html").is_file()
    rows = read_results(tmp_path / "out" / "results.json")
    assert {row.metric for row in rows if row.model == "dpo"} >= {"helpfulness", "over_control", "kl", "flops", "lines"}
    code, out, _ = call(capsys, *words, "--json", "--control", "same")
    value = json.loads(out)
    assert (code, value["control"]) == (0, "same")
    assert value["methods"][0]["numbers"]["over_control"]["clusters"] == CLUSTERS


def test_bad_input_is_one_line(runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = make_run(tmp_path / "other", start="base")
    (tmp_path / "empty").mkdir()
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    write_json(unfinished / "status.json", {"run": "x", "status": "running", "stages": []})
    for words, said in (
        ([tmp_path / "empty"], "not a run: status.json is missing"),
        ([unfinished], "no final evaluation against a start by gold is finished here"),
        ([runs[0], runs[0]], "RUN: the same run is given twice"),
        ([runs[0], other], "methods are compared from one start, and these are judged against sft"),
        ([runs[0], "--control", "none"], "--control: there is no method 'none' here; methods: "),
    ):
        code, out, err = call(capsys, "compare", *map(str, words), "--out", str(tmp_path / "out"))
        assert (code, out, said in err, err.count("\n")) == (2, "", True, 1), err
        assert not (tmp_path / "out").exists()
    path = runs[0] / "stages" / "01-dpo-judged-00000000" / "outcomes.jsonl"
    path.write_text('{"prompt_id": 1}\n')
    assert "outcomes.jsonl:1: " in refused(lambda: compare_runs(runs))


def test_another_judge_than_gold(runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A reward model that contradicts gold in everything; on one axis or on both."""
    for path in runs[0].glob("stages/*/outcomes.jsonl"):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        turned = [{**line, "judge": "rm", "score": 1 - line["score"]} for line in lines if line["judge"] == "gold"]
        write_jsonl(path, [*lines, *turned])

    def verdicts(*words: str) -> tuple[dict[str, str], dict[str, str], dict[str, Any]]:
        out = tmp_path / "out"
        code, said, _ = call(capsys, "compare", str(runs[0]), "--out", str(out), "--json", *words)
        assert code == 0
        rows = {(row.metric, row.model): row for row in read_results(out / "results.json")}
        shown = json.loads(said)
        safer = {
            name: "over" if (row.value or 0) > 0 else "under"
            for (m, name), row in rows.items()
            if m == "safety_over_control"
        }
        return (
            {each["method"]: each["verdict"] for each in shown["methods"]},
            safer,
            {metric: row.judge for (metric, name), row in rows.items() if name == "dpo"},
        )

    helpful, safer, judges = verdicts("--judge", "rm")
    assert (helpful["dpo"], helpful["worse"]) == ("FAIL", "PASS")
    assert (safer["dpo"], safer["worse"]) == ("under", "over")
    assert (judges["helpfulness"], judges["safety"], judges["content"]) == ("rm", "rm", "gold")
    helpful, safer, judges = verdicts("--judge", "helpfulness=rm")
    assert (helpful["dpo"], safer["dpo"]) == ("FAIL", "over")
    assert (judges["over_control"], judges["safety_over_control"], judges["kl"]) == ("rm", "gold", None)
    assert "judged by rm and gold" in " ".join((tmp_path / "out" / "index.html").read_text().split())
    helpful, safer, judges = verdicts("--judge", "safety=gold", "--judge", "rm")  # in whatever order
    assert (judges["over_control"], judges["safety_over_control"]) == ("rm", "gold")
    misspelt = call(capsys, "compare", str(runs[0]), "--judge", "helpfulness=rmm")
    assert (misspelt[0], "rmm has not judged helpfulness; who has: gold, people, rm" in misspelt[2]) == (2, True)
    for word in ("style=rm", "helpfulness="):
        assert "--judge: " in call(capsys, "compare", str(runs[0]), "--judge", word)[2]
    assert "against a start by nobody is finished here" in call(capsys, "compare", str(runs[0]), "--judge", "nobody")[2]


def test_averages() -> None:
    rows = [Result("kl", value=1.0, interval=(0.0, 2.0), n=5), Result("kl", value=3.0, interval=(2.0, 4.0), n=5)]
    assert averaged(rows, independent=True).interval == pytest.approx((2 - 2**0.5 / 2, 2 + 2**0.5 / 2))
    assert averaged(rows, independent=False).interval == (1, 3)
    assert averaged([rows[0], replace(rows[1], interval=None)], independent=True).interval is None


def test_names_stand_apart_in_their_order() -> None:
    assert spread([0.5, 0.5, 0.1, 0.99, 1.0], 0.1) == pytest.approx([0.5, 0.6, 0.1, 0.9, 1.0])
    moved = spread([0.9] * 11, 0.1)
    assert moved == pytest.approx([i / 10 for i in range(11)])


def test_lines_of_code(tmp_path: Path) -> None:
    assert own_lines({"sft"}) == 0
    assert "ayni.maths.losses" in imported("ayni.stages.dpo")
    assert 0 < own_lines({"dpo"}) < own_lines({"reject"}) < own_lines({"ppo"})
    assert own_lines({"reject", "sft"}) == own_lines({"reject"})
    assert own_lines({"nobody_knows"}) == 0
    assert lines_of("ayni.preprompts") < len(Path("ayni/preprompts.py").read_text().splitlines())


# recipes/compare.yaml, small

COMPARE = Path(__file__).parent.parent / "recipes" / "compare.yaml"
NAMES = ("random", "dpo", "ppo", "pro", "raft", "constitutional")
AT_INFERENCE = {"best-of-8-judged": "sft best of 8", "beam-judged": "sft beam 2×2"}
SMALL = f"""\
extends: {COMPARE}
name: small
methods:
  tries: 2
  each:
    "{{method}}": {{limit: 12, max_tokens: 8, threshold: 0, dtype: fp32}}
    "{{method}}-judged": {{limit: 12, max_tokens: 8, dtype: fp32}}
    "{{method}}-asked": {{max_tokens: 4, dtype: fp32}}
  of:
    random:
      random-samples: {{limit: 24, n: 2, threshold: 0, max_tokens: 16, finished_only: false, dtype: fp32}}
      "random-{{t}}": {{dtype: fp32}}
    dpo: {{"dpo-{{t}}": {{dtype: fp32}}}}
    ppo:
      "ppo-{{t}}":
        {{iterations: 2, batch_size: 16, mini_batch: 8, critic_warmup: 1, threshold: 0, max_tokens: 8, dtype: fp32}}
    pro: {{"pro-{{t}}": {{limit: 8, max_tokens: 8, finished_only: false, threshold: 0, dtype: fp32}}}}
    raft:
      "raft-{{t}}-samples1": &round
        {{limit: 12, n: 2, threshold: 0, max_tokens: 16, finished_only: false, dtype: fp32}}
      "raft-{{t}}-samples2": *round
      "raft-{{t}}-round1": {{dtype: fp32}}
      "raft-{{t}}": {{dtype: fp32}}
    constitutional:
      constitutional-revised: {{limit: 30, max_tokens: 40, dtype: fp32}}
      "constitutional-{{t}}": {{dtype: fp32}}
stages:
  village: {{words: 30000, demonstrations: 200, exercises: 60, prompts: 200, attacks: 60, revising: 60}}
  best-of-8-judged: {{limit: 6, max_tokens: 8, dtype: fp32, threshold: 0}}
  beam-judged: {{limit: 6, max_tokens: 8, dtype: fp32, threshold: 0, search: {{step: 4}}}}
  tokenizer: {{vocab_size: 400}}
  base: {{dim: 16, layers: 1, heads: 2, kv_heads: 1, hidden: 32, tokens: 20000, dtype: fp32}}
  sft: {{dtype: fp32}}
  comparisons: {{limit: 60, max_tokens: 16, pairs_per_prompt: 1, dtype: fp32}}
  helpfulness: {{start_answers: 8, max_tokens: 16, dtype: fp32}}
  safety: {{start_answers: 8, max_tokens: 16, dtype: fp32}}
  judged-comparisons: {{limit: 60, max_tokens: 16, pairs_per_prompt: 1, dtype: fp32}}
  judge-helpfulness: {{start_answers: 8, max_tokens: 16, dtype: fp32}}
  judge-safety: {{start_answers: 8, max_tokens: 16, dtype: fp32}}
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compare")
    (folder / "small.yaml").write_text(SMALL)
    only = [f"{name}-{end}" for name in ("random", "dpo") for end in ("judged", "asked")]
    run_recipe(folder / "small.yaml", folder / "run", only=only, quiet=True)
    return folder


def test_a_method_more_reruns_nothing_else(small: Path) -> None:
    only = [*AT_INFERENCE, *(f"{name}-{end}" for name in NAMES for end in ("judged", "asked"))]
    again = run_recipe(small / "small.yaml", small / "run", only=only, quiet=True)
    ran = {stage["name"] for stage in again["stages"] if stage["state"] == "ran"}
    more = ("ppo", "pro", "raft", "constitutional")
    assert {name for name in ran if not name.startswith(more)} == AT_INFERENCE.keys()
    assert {f"{name}{end}" for name in more for end in ("-1", "-2", "", "-judged", "-asked")} < ran
    comparison = compare_runs([small / "run"])
    assert {m.name for m in comparison.methods} == {*NAMES, *AT_INFERENCE.values()}
    chosen = [m for m in comparison.methods if m.name in AT_INFERENCE.values()]
    assert all((m.value("drawn") or 0) > (m.value("length") or 0) for m in chosen)
    for method in comparison.methods:
        if method in chosen:
            continue
        assert {"helpfulness", "safety", "content", "kl", "length", "self_bleu", "refused"} <= method.numbers.keys()
        assert {"seconds", "seconds_of_tries", "lines", "memory"} <= method.numbers.keys()
        assert method.chosen[0].endswith(" of 2")
    by_name = {m.name: m for m in comparison.methods}
    assert by_name["random"].verdict is None
    assert by_name["ppo"].verdict is not None
    random = by_name["random"]
    assert (random.value("seconds") or 0) < (random.value("seconds_of_tries") or 0)


def test_every_method_of_the_recipe_has_its_time() -> None:
    from ayni.runs.recipe import read_recipe

    recipe = read_recipe(COMPARE)
    assert {entry.name for entry in recipe.stages} == recipe.seconds.keys()
    assert sum(recipe.seconds.values()) < 75 * 60
