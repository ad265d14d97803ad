"""The pure parts of benchmarks/: data, FLOPs, medians, the check of equal work, tables. No timings, no peers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ayni.errors import BadInput
from ayni.evaluate.items import Item, rows_of
from ayni.evaluate.results import write_results
from ayni.files import write_json, write_jsonl, write_text
from ayni.model import layout
from ayni.model.layout import Layout
from ayni.model.shape import Shape
from ayni.model.transformer import Transformer, initialise
from ayni.records import Message, to_dict
from ayni.runs.recipe import read_recipe
from ayni.text.chat import render_prompt
from ayni.train.batch import Pair
from benchmarks import data, flops, machine, methods, numbers, publish, summary, tables, verdicts
from benchmarks.fingerprint import fingerprint
from benchmarks.number_text import number_tokenizer
from benchmarks.options import asked
from benchmarks.turns import ROOT

SMALL = Shape(dim=4, layers=1, heads=2, kv_heads=1, hidden=3, vocab=5)


# data


def test_lengths_are_those_that_the_documentation_states() -> None:
    draw = np.random.default_rng(0)
    rows = [data.lengths(draw, data.ROWS) for _ in range(2000)]
    every = np.concatenate(rows)
    assert data.SHORTEST <= every.min() < every.max() <= data.LONGEST
    assert every.mean() == pytest.approx(196, abs=2)
    assert data.padded_share([row.tolist() for row in rows]) == pytest.approx(1.9, abs=0.05)


def test_both_sides_draw_the_same_data_and_every_step_other_data() -> None:
    assert data.sequences("tiny", 3) == data.sequences("tiny", 3) != data.sequences("tiny", 4)
    assert data.pairs("tiny", 3) == data.pairs("tiny", 3)


def test_dialogues_are_a_prompt_and_an_answer_up_to_eos() -> None:
    for sequence in data.sequences("tiny", 0):
        prompt, answer = data.prompt_of(sequence), data.answer_of(sequence)
        assert prompt + answer == sequence.tokens
        assert 1 / 6 - 0.05 < len(prompt) / len(sequence.tokens) < 1 / 2 + 0.05
        assert answer[-1] == data.EOS
        assert min(sequence.tokens[:-1]) >= data.FIRST


def test_the_answers_of_a_pair_share_their_prompt() -> None:
    for pair in data.pairs("tiny", 1):
        assert data.prompt_of(pair.chosen) == data.prompt_of(pair.rejected)


def test_numbers_as_text_come_back_as_they_went() -> None:
    tokenizer = number_tokenizer()
    assert render_prompt((Message("user", "17 23"),), tokenizer) == [data.BOS, 3, 17, 23, 4]
    assert tokenizer.encode(tokenizer.decode([17, 23])) == [17, 23]


# FLOPs


def test_flops_of_a_shape_counted_by_hand() -> None:
    assert flops.matrices(SMALL) == 2 * 16 + 2 * 4 * 2 + 3 * 4 * 3 == 84
    # 5 columns give keys and values, two answer: of 2 and 3 keys, through the other matrices and the head
    rows = [flops.Row(2, (1,)), flops.Row(3, (2,))]
    assert flops.forward(SMALL, rows) == 2 * 16 * 5 + 2 * 68 * 2 + 4 * 4 * 5 + 2 * 4 * 5 * 2
    two = replace(SMALL, layers=2)
    assert flops.forward(two, rows) == flops.forward(SMALL, rows) + 2 * 84 * 5 + 4 * 4 * 9
    # the second row's first two columns are the first row's
    shared = [rows[0], replace(rows[1], shared=2)]
    assert flops.forward(two, rows) - flops.forward(two, shared) == 2 * 2 * (84 + 16) + 4 * 4 * 3
    assert flops.decoding_bytes(SMALL, 4) == (84 + 20) * 4


def test_flops_beside_torch_which_counts_the_whole_square(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "takes_native", lambda q: False)  # what the counter does not see
    shape, length = data.SHAPES["tiny"], 32
    model = initialise(Transformer(shape), 0)
    model.dtype = torch.bfloat16  # plain products: the counter knows nothing of the fused kernel on a CPU
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.arange(length), Layout.of([length]))
    unseen = length**2 - length * (length + 1) // 2
    head = 2 * shape.dim * shape.vocab * length
    every = flops.forward(shape, [flops.Row(length, tuple(range(length)))]) - head
    assert counter.get_total_flops() == every + 4 * shape.layers * shape.dim * unseen


def test_training_takes_three_passes_and_the_head_only_at_answers() -> None:
    sequences = data.sequences("tiny", 0, count=2)
    rows = [flops.row_of(s) for s in sequences]
    for row, sequence in zip(rows, sequences, strict=True):
        answer = len(data.answer_of(sequence))
        assert row.asked == tuple(range(row.length - answer - 1, row.length - 1))
    assert flops.training(SMALL, sequences) == 3 * flops.forward(SMALL, rows)
    pair = Pair(*sequences)
    assert flops.rows_of(pair) == [rows[0], replace(rows[1], shared=len(data.prompt_of(sequences[0])) - 1)]


# turns


def turn(seconds: float, **more: Any) -> dict[str, Any]:
    return {"seconds": seconds, "items": 10, "memory": 100 * seconds, "losses": [2.0, 1.0], **more}


ROUNDS = [
    {"ayni fp32": turn(1, flops=5), "peer fp32": turn(2), "ceiling fp32": {"flops_s": 10.0, "bytes_s": 4.0}},
    {"ayni fp32": turn(2, flops=5), "peer fp32": turn(8), "ceiling fp32": {"flops_s": 20.0, "bytes_s": 4.0}},
    {"ayni fp32": turn(1, flops=5), "peer fp32": turn(3), "ceiling fp32": {"flops_s": 10.0, "bytes_s": 4.0}},
]


def test_a_ratio_is_the_median_of_pairs_with_least_and_most() -> None:
    row = summary.compared(ROUNDS, "ayni fp32", "peer fp32")
    assert (row["ratio"], row["least"], row["most"]) == (3.0, 2.0, 4.0)
    assert (row["speed"], row["peer_speed"]) == (10.0, pytest.approx(10 / 3))
    assert (row["memory"], row["peer_memory"], row["pairs"]) == (200, 800, 3)


def test_shares_are_of_the_ceiling_in_the_same_round() -> None:
    assert summary.shares(ROUNDS, "ayni fp32", "ceiling fp32") == {"of_products": 0.5}
    reading = [{"ayni fp32": turn(2, bytes=4), "ceiling fp32": {"flops_s": 1.0, "bytes_s": 8.0}}]
    assert summary.shares(reading, "ayni fp32", "ceiling fp32") == {"of_reading": 4.0}


def test_the_parts_of_a_turn_are_shares_of_its_seconds() -> None:
    rounds = [{"ayni fp32": turn(2, split={"sampling": 1.0})}]
    assert summary.alone(rounds, "ayni fp32")["split"] == {"sampling": 0.5}


def test_the_fastest_side_is_the_one_with_the_best_median() -> None:
    assert summary.best(ROUNDS, ["ayni fp32", "peer fp32"]) == "ayni fp32"


def test_unequal_work_ends_a_comparison() -> None:
    first = [{"ayni fp32": turn(1), "peer fp32": turn(1, losses=[2.0, 1.01])}]
    assert summary.checked(first, "ayni fp32", "peer fp32", 0.02)["disagreement"] == pytest.approx(0.01 / 1.01)
    with pytest.raises(SystemExit, match="other work"):
        summary.checked(first, "ayni fp32", "peer fp32", 0.001)
    swapped = [{"ayni fp32": turn(1), "peer fp32": turn(1, losses=[1.0, 2.0])}]
    assert summary.checked(swapped, "ayni fp32", "peer fp32", 0.001, mean=True)["disagreement"] == 0


# the command line and the machine


def test_formats_asked_for_twice_are_measured_once() -> None:
    given = asked("", steps=1, variants=(), argv=["--dtype", "fp32", "bf16", "auto", "--threads", "1", "--peers"])
    assert sorted(given.dtypes) == ["bf16", "fp32"]
    assert given.peers == ()
    assert [options.dtype for options in given.each()] == list(given.dtypes)


@pytest.mark.parametrize(
    ("flags", "units"),
    [("fma amx_bf16 avx512_bf16", "AMX"), ("avx512_bf16", "AVX-512 BF16"), ("avx2", "no bf16 units")],
)
def test_a_machine_is_named_with_its_matrix_units(flags: str, units: str) -> None:
    name = machine.name_of("cpu", f"model name\t: Some(R) CPU @ 2.0GHz\nflags\t\t: {flags}\n")
    assert name == f"Some(R) CPU @ 2.0GHz ({units})"
    assert machine.slug(name).startswith("some-cpu-2-0ghz-")
    zen = "cpu family\t: 26\nmodel name\t: AMD EPYC\nflags\t\t: avx512_bf16\n"
    assert machine.name_of("cpu", zen) == "AMD EPYC, Zen 5 (AVX-512 BF16)"


# tables


def result() -> dict[str, Any]:
    row = summary.compared(ROUNDS, "ayni fp32", "peer fp32")
    rows = [{**summary.alone(ROUNDS, "ayni fp32"), "of_products": 0.5}, row, {**row, "best": True}]
    work = {"work": "sft", "variant": "", "shape": "A", "unit": "tokens/s", "threads": 2, "rows": rows}
    limits = {"fp32": {"flops_s": 187e9, "bytes_s": 28e9}}
    about = {"machine": "a box", "cores": 2, "memory_gb": 8, "load": 0.1, "date": "today", "commit": "abc"}
    return {**about, "minutes": 1.5, "versions": {"torch": "2"}, "works": [{**work, "ceilings": limits}]}


def test_tables_hold_every_comparison_and_leave_the_rest_of_the_page() -> None:
    page = f"before\n{tables.BEGIN}\nold\n{tables.END}\nafter\n"
    text = tables.filled(page, [result()])
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    assert "### a box" in text
    assert "Ceilings: fp32 187 GFLOP/s, a copy 28 GB/s." in text
    assert "| SFT, A, fp32 | 10 tokens/s | peer 3.33 | **3.00** [2.00, 4.00] | 200 / 800 |" in text
    assert "| SFT, A, best format beside best | 10 (fp32) tokens/s | peer (fp32) 3.33 |" in text
    assert "- SFT, A, fp32: 50% of the ceiling of products" in text
    assert tables.filled(text, [result()]) == text


@pytest.mark.parametrize(("speed", "shown"), [(2.617, "2.62"), (871.4, "871"), (2517.0, "2,520"), (99_950, "100,000")])
def test_speeds_have_three_figures(speed: float, shown: str) -> None:
    assert tables.short(speed) == shown


def test_the_page_is_what_the_results_make_of_it() -> None:
    page = tables.PAGE.read_text(encoding="utf-8")
    assert tables.filled(page, tables.read()) == page


# published numbers


def run_of(directory: Path, name: str, rights: list[int]) -> Path:
    """A finished run whose one evaluation asked two topics, as often as there are `rights`."""
    stage = directory / name / "stages" / "01-evaluate-0"
    stage.mkdir(parents=True)
    who = {"model": "new", "against": "old", "judge": "gold"}
    asked = [{"prompt_id": f"{name}:{i}", "cluster": f"topic {i % 2}"} for i in range(len(rights))]
    outcomes = [
        {**each, **who, "axis": "safety", "category": "", "score": float(right)}
        for each, right in zip(asked, rights, strict=True)
    ]
    write_jsonl(stage / "outcomes.jsonl", outcomes)
    items = [
        Item("content", right, a["prompt_id"], a["cluster"], "sum") for a, right in zip(asked, rights, strict=True)
    ]
    write_jsonl(stage / "items.jsonl", map(to_dict, items))
    write_results(stage / "results.json", rows_of(items, 1))
    write_json(stage / "opened.json", {"stage": "evaluate", "commit": "abcdef0123", "changed": False, "seed": 1})
    entry = {"name": "evaluate", "kind": "evaluate", "directory": "stages/01-evaluate-0", "state": "ran", "seconds": 60}
    write_json(directory / name / "status.json", {"run": name, "status": "done", "stages": [entry]})
    return directory / name


def test_several_runs_are_pooled_by_their_prompts_and_one_topic_is_one_cluster(tmp_path: Path) -> None:
    runs = [run_of(tmp_path, "a", [1, 1, 0, 1]), run_of(tmp_path, "b", [0, 1])]
    document = publish.published(runs)
    assert [each["run"] for each in document["runs"]] == ["a", "b"]
    won = numbers.one(document["results"], "win_rate", model="new", against="old")
    assert (won["wins"], won["losses"], won["clusters"]) == (4, 2, 2)
    content = numbers.one(document["results"], "content:sum")
    assert (content["n"], content["clusters"], content["value"]) == (6, 2, 4 / 6)
    made = document["made"]
    assert made["command"] == "ayni run recipes/a.yaml && ayni run recipes/b.yaml"
    assert (made["commit"], made["seconds"]) == ("abcdef0", 120)
    shown = publish.readable(document)
    assert json.loads(shown) == document
    assert max(map(len, shown.splitlines())) < 500
    alone = publish.published(runs[:1])
    assert "runs" not in alone
    assert numbers.one(alone["results"], "content")["value"] == 0.75


def test_what_is_published_says_which_village_it_was_made_on(tmp_path: Path) -> None:
    run = run_of(tmp_path, "tiny", [1, 0])
    recipe = read_recipe(ROOT / "recipes" / "tiny.yaml", ["seed=9", "village.village_seed=8"]).resolved()
    claim = {"says": "half is right", "number": {"metric": "content"}, "above": 0.4}
    write_text(run / "recipe.yaml", json.dumps(recipe | {"claims": [claim]}))
    document = publish.published([run])
    assert document["made"]["command"] == "ayni run recipes/tiny.yaml --set seed=9 --set village.village_seed=8"
    assert document["made"]["recipe"] == fingerprint(read_recipe(ROOT / "recipes" / "tiny.yaml"))
    (said,) = document["claims"]
    assert (said["verdict"], said["value"], said["above"], said["below"]) == ("UNDECIDED", 0.5, 0.4, None)


def test_an_unfinished_run_is_not_published(tmp_path: Path) -> None:
    run = run_of(tmp_path, "a", [1, 0])
    write_json(run / "status.json", {"run": "a", "status": "failed", "stages": []})
    with pytest.raises(BadInput, match="the run is failed"):
        publish.published([run])


@pytest.mark.parametrize("page", numbers.pages(), ids=lambda page: page.name)
def test_the_numbers_of_every_page_are_those_of_the_results(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert numbers.filled(text) == text, "python -m benchmarks.numbers"


def test_every_block_of_numbers_on_a_page_is_known() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in numbers.pages())
    assert {name for _, name, _ in numbers.MARKS.findall(text)} <= set(numbers.BLOCKS)


def claimed(value: float | None, interval: tuple[float, float] | None, above: float = 0.5) -> dict[str, object]:
    why = "" if interval else "nothing measured x"
    return {"says": "it rises", "above": above, "below": None, "value": value, "interval": interval, "why": why}


def test_a_claim_tried_in_several_villages_is_judged_by_all_of_them(tmp_path: Path) -> None:
    """Halves 0.06 and 0.08 of two villages: of their mean 0.05. Who fails alone is named."""
    for seed, value, interval, again in ((1, 0.56, (0.50, 0.62), 0.42), (2, 0.60, (0.52, 0.68), 0.60)):
        claims = [claimed(value, interval), claimed(again, (again - 0.06, again + 0.06))]
        write_json(tmp_path / f"two-words-seed{seed}.json", {"claims": claims})
    write_json(
        tmp_path / "alone-seed1.json",
        {"made": {"recipe": "f1", "commit": "abc"}, "claims": [claimed(0.45, (0.40, 0.49)), claimed(None, None)]},
    )
    write_json(tmp_path / "mini.json", {"claims": []})
    write_json(tmp_path / "compare-seed1.json", {"comparison": {}})  # of methods, which claims nothing
    assert verdicts.table(verdicts.found(tmp_path), {"alone": "f1"}).splitlines()[2:] == [
        "| alone, village [1](results/alone-seed1.json) | it rises | above 0.5 | 0.450 [0.400, 0.490] | FAIL |",
        "|  | it rises | above 0.5 | nothing measured x | UNDECIDED |",
        "| two-words, villages [1](results/two-words-seed1.json), [2](results/two-words-seed2.json) "
        "| it rises | above 0.5 | 0.580 [0.530, 0.630] (0.560 / 0.600) | PASS |",
        "|  | it rises | above 0.5 | 0.510 [0.468, 0.552] (0.420 / 0.600) | UNDECIDED (1: FAIL) |",
        "",
        "FAIL with one claim or more, 1 of 2: alone.  ",
        "Undecided in part, 1 of 2: two-words.",
    ]
    # the recipe has changed since
    assert "| alone, village [1](results/alone-seed1.json), at abc | it" in verdicts.table(
        verdicts.found(tmp_path), {"alone": "f2"}
    )
    write_json(tmp_path / "alone-seed2.json", {"made": {"recipe": "f2", "commit": "def"}, "claims": []})
    with pytest.raises(BadInput, match=r"alone-seed2\.json: another recipe made it than the other villages' results"):
        verdicts.table(verdicts.found(tmp_path), {})


def test_a_fingerprint_is_of_what_is_computed(tmp_path: Path) -> None:
    def of(*settings: str) -> str:
        return fingerprint(read_recipe(ROOT / "recipes" / "tiny.yaml", settings))

    assert of("seed=9", "village.village_seed=8", "sft.tokens_per_micro_batch=8192") == of()
    assert of("sft.batch_size=3") != of()
    # what `only` leaves out does not count
    (tmp_path / "part.yaml").write_text(f"extends: {ROOT / 'recipes' / 'tiny.yaml'}\nname: part\nonly: [base]\n")
    part = tmp_path / "part.yaml"
    assert fingerprint(read_recipe(part, ["sft.batch_size=3"])) == fingerprint(read_recipe(part)) != of()


def judged(name: str, over: tuple[float, float, float] | None, **costs: float) -> dict[str, object]:
    found: dict[str, object] = {key: {"value": value, "interval": None} for key, value in costs.items()}
    if over is not None:
        found["over_control"] = {"value": over[0], "interval": over[1:]}
    return {"method": name, "draws": 1, "numbers": found}


def test_methods_of_several_seeds_are_pooled_by_their_numbers() -> None:
    """Halves 0.06 and 0.08: of their mean 0.05."""
    seeds = [
        [judged("random", None, flops=2e12), judged("dpo", (0.06, 0.00, 0.12), flops=4e12, kl=1.0)],
        [judged("random", None, flops=2e12), judged("dpo", (0.10, 0.02, 0.18), flops=6e12, kl=2.0)],
    ]
    documents = [{"comparison": {"control": "random", "methods": of}} for of in seeds]
    assert methods.table(documents).splitlines() == [
        "| method | helpful, over the control | KL, nats | compute, 10¹² | verdict |",
        "|---|---|---|---|---|",
        "| dpo | +8.0 [3.0, 13.0] | 1.50 | 5.00 | PASS |",
        "| random | – | – | 2.00 | control |",
    ]
    other = {"comparison": {"control": "random", "methods": [judged("dpo", None, kl=1.0)]}}
    assert "| dpo | 1.00 | UNDECIDED |" in methods.table([other])
    three = methods.table([*documents, {"comparison": {"control": "random", "methods": [seeds[0][0]]}}])
    assert "| dpo (2 of 3 seeds) | +8.0 [3.0, 13.0] | 1.50 | 5.00 | PASS |" in three
    of_two = [{**method, "draws": 2} for method in seeds[0]]
    both = methods.table([{"comparison": {"control": "random", "methods": [of_two[0], seeds[0][1]]}}])
    assert "| dpo (1 of 2 seeds) |" in both
    with pytest.raises(ValueError, match="differ in their recipe, their control"):
        methods.table([*documents, {"comparison": {"control": "sft", "methods": []}}])
    alone = methods.table(documents[:1]).splitlines()
    assert "| dpo | +6.0 [0.0, 12.0] | 1.00 | 4.00 | UNDECIDED |" in alone
