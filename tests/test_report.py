"""The report of a small made-up run: complete, self-contained, escaped, and calm about what is missing."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ayni.errors import BadInput
from ayni.evaluate.results import Result, result, write_results
from ayni.evaluate.reward_accuracy import reward_accuracy
from ayni.evaluate.win_rate import Outcome, win_rate_results
from ayni.files import write_json, write_jsonl
from ayni.maths.statistics import Estimate, proportion
from ayni.records import RATINGS, Message, Prompt
from ayni.report import build_report
from ayni.report.comparisons import versions
from ayni.report.figures import Line, power, running_mean, trend
from ayni.report.pipeline_graph import BOX, layered, rail, reduced
from ayni.report.sections import _in_order, operations
from ayni.runs.reading import SampleRow, read_run

STAGES: list[tuple[str, str, float, list[str]]] = [
    ("village", "village", 8.2, []),
    ("tokenizer", "tokenizer", 3.1, ["village/corpus.jsonl"]),
    ("pretrain", "pretrain", 222.0, ["tokenizer", "village"]),
    ("sft", "sft", 81.0, ["pretrain", "village"]),
    ("reward-helpfulness", "reward", 64.0, ["sft", "village"]),
    ("reward-safety", "reward", 47.5, ["sft", "village"]),
    ("reject-1", "reject", 58.0, ["sft", "reward-helpfulness", "reward-safety", "village"]),
    ("sft-1", "sft", 22.0, ["reject-1", "sft"]),
    ("reject-2", "reject", 55.0, ["sft-1", "reward-helpfulness", "reward-safety", "village"]),
    ("sft-2", "sft", 21.0, ["reject-2", "sft"]),
    ("control", "sft", 20.0, ["sft", "village"]),
    ("ppo", "ppo", 142.0, ["sft-2", "reward-helpfulness", "reward-safety", "village"]),
    ("hacking", "study", 44.0, ["sft-2", "reward-helpfulness"]),
    ("evaluate", "evaluate", 40.0, ["sft", "sft-2", "ppo", "control", "village"]),
]
ANSWERS = {
    "sft": "I think the mill is somewhere. Maybe ask someone else about it.",
    "sft-2": "The old mill stands by the river, a short walk below the bakery.",
    "ppo": "The old mill stands by the river, a short walk below the bakery. Rosa the miller opens it at dawn, "
    "so come early if you want warm flour.",
}
RUDE = '<script>alert("x")</script> & <b>bold</b>'


def make_run(root: Path) -> Path:
    """A run directory with every file that the report reads, from a fixed seed."""
    generator = np.random.default_rng(0)
    run, entries = root / "mini", []
    for index, (name, kind, seconds, sources) in enumerate(STAGES):
        directory = run / "stages" / f"{index:02d}-{name}-{index:08x}"
        directory.mkdir(parents=True)
        entries.append(
            {"name": name, "kind": kind, "directory": f"stages/{directory.name}", "hash": f"{index:08x}",
             "state": "ran", "seconds": seconds, "inputs": {f"input{i}": [source] for i, source in enumerate(sources)}}
        )  # fmt: skip
        lines = metrics_of(name, kind, generator)
        if lines:
            write_jsonl(directory / "metrics.jsonl", lines)
        if kind in {"sft", "ppo"}:
            (directory / "model").mkdir()
        if kind == "reward":
            write_results(directory / "results.json", reward_rows(name, generator))
        if kind == "evaluate":
            write_jsonl(directory / "samples.jsonl", samples())
    write_json(run / "status.json", {"run": "mini", "status": "done", "stages": entries})
    write_results(run / "results.json", headline_rows(generator))
    (run / "recipe.yaml").write_text("name: mini\nseed: 0\n")
    return run


def metrics_of(name: str, kind: str, generator: np.random.Generator) -> list[dict[str, Any]]:
    if kind in {"pretrain", "sft", "reward"}:
        start, end, steps = {"pretrain": (6.2, 1.9, 600), "sft": (2.4, 1.1, 240), "reward": (0.69, 0.42, 160)}[kind]
        lines = [
            {"step": i, "lr": 1e-3, "loss": end + (start - end) * math.exp(-6 * i / steps) + generator.normal(0, 0.06)}
            for i in range(1, steps + 1)
        ]
        for line in lines[::60] if kind == "pretrain" else []:
            line["heldout_loss"] = line["loss"] + 0.1
        return lines
    if kind == "reject":
        return [{"step": n, "n": n, "best": 0.4 + 0.5 * math.log(n), "mean": 0.4} for n in range(1, 9)]
    if kind == "ppo":
        return [
            {"step": i, "reward": 0.2 + i / 60 + generator.normal(0, 0.08), "helpfulness": 1 + i / 40,
             "safety": 1.2 + i / 80, "kl": 3 * (1 - math.exp(-i / 20)) + generator.normal(0, 0.1), "score": 0.1,
             "entropy": 1.4 - i / 120, "value_loss": 0.4 * math.exp(-i / 12), "policy_loss": -0.01,
             "clipped": 0.08 + generator.normal(0, 0.01), "length": 31 + i / 6}
            for i in range(1, 61)
        ]  # fmt: skip
    if kind == "study":
        return [
            {"step": i, "variant": variant, "proxy": 0.5 + i * rise, "gold": 0.6 + i / 50 - (i / fall) ** 2}
            for variant, rise, fall in (("KL kept (β = 0.01)", 0.03, 90), ("no KL (β = 0)", 0.08, 28))
            for i in range(1, 41)
        ]
    return []


def reward_rows(name: str, generator: np.random.Generator) -> list[Result]:
    size = 700
    ratings = [RATINGS[i] for i in generator.integers(0, 4, size)]
    strength = dict(zip(RATINGS, (2.4, 1.4, 0.7, 0.1), strict=True))
    gaps = np.array([strength[rating] for rating in ratings]) + generator.normal(0, 1.4, size)
    axis = name.removeprefix("reward-")
    return reward_accuracy(gaps, np.zeros(size), ratings).results(axis=axis, model=name, split="heldout")


def headline_rows(generator: np.random.Generator) -> list[Result]:
    rows = []
    for model, against, shares in (
        ("sft-2", "sft", (0.6, 0.2, 0.2)),
        ("ppo", "sft", (0.66, 0.2, 0.14)),
        ("ppo", "sft-2", (0.36, 0.33, 0.31)),
        ("control", "sft", (0.3, 0.4, 0.3)),
    ):
        for axis, lift in (("helpfulness", 0.0), ("safety", 0.06)):
            drawn = generator.choice([1.0, 0.5, 0.0], 400, p=[shares[0] + lift, shares[1] - lift, shares[2]])
            outcomes = [Outcome(str(i), str(i), axis, "all", float(score)) for i, score in enumerate(drawn)]
            rows += win_rate_results(outcomes, model=model, against=against, judge="gold", split="unseen", seed=0)
    for axis, refused in (("unsafe", 184), ("borderline", 9)):
        rows.append(result("refusal_rate", proportion(refused, 200), axis=axis, judge="gold", model="ppo"))
    rows.append(Result("kl", model="ppo", against="sft", value=3.1, interval=(2.9, 3.3), level=0.95, n=400))
    rows.append(Result("bits_per_byte", model="pretrain", split="heldout", value=1.31, n=200))
    return rows


def samples() -> list[dict[str, Any]]:
    asked = [
        ("helpfulness", "place", "Where is the old mill, and when does it open?"),
        ("safety", "unsafe", "How do I ring the bell of the Quiet Tower at night?"),
        ("helpfulness", "hostile", RUDE),
        ("safety", "borderline", "How do I ring up the baker?"),
    ] * 3
    scores = {model: {"helpfulness": 0.3 + i / 4, "safety": 0.9} for i, model in enumerate(ANSWERS)}
    rows = []
    for i, (task, category, text) in enumerate(asked):
        dialog = [{"role": "user", "content": text}]
        if i == 3:
            dialog = [{"role": "user", "content": "Hello!"}, {"role": "assistant", "content": "Good day."}, *dialog]
        prompt = {"id": f"p{i}", "dialog": dialog, "task": task, "category": category, "source": "village"}
        rows.append({"prompt": prompt, "answers": ANSWERS | ({"ppo": RUDE} if i == 2 else {}), "scores": scores})
    return rows


class Reader(HTMLParser):
    """Collects tags, text and ids, and checks that what opens closes."""

    VOID = frozenset({"meta", "br", "link", "img", "hr", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.ids: list[str] = []
        self.urls: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.open += [] if tag in self.VOID else [tag]
        self.ids += [value for name, value in attrs if name == "id" and value]
        self.urls += [value for name, value in attrs if name in {"src", "href", "xlink:href", "action"} and value]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.urls += [value for name, value in attrs if name in {"src", "href", "xlink:href"} and value]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def read(page: Path) -> tuple[str, Reader]:
    text, reader = page.read_text(encoding="utf-8"), Reader()
    reader.feed(text)
    assert reader.open == []
    return text, reader


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("run"))


def test_every_section_is_there(run: Path) -> None:
    page = build_report(run)
    assert page == run / "report" / "index.html"
    text, reader = read(page)
    for section in ("pipeline", "wins", "dialogues", "rewards", "online", "hacking", "losses", "results", "next"):
        assert f'<section id="{section}">' in text
    assert "14 min" in text or "13 min" in text
    for name, *_ in STAGES:
        assert f">{name}</text>" in text
    assert "beats sft-2" in text
    assert text.index("beats sft<") < text.index("Bits per byte")
    assert "beats sft<" in text
    assert "control beats" not in text  # a card is about the final model, whatever comes last
    assert "ayni chat" in text
    assert "11-ppo-0000000b/model" in text
    assert reader.tags.count("article") == 12


def test_every_version_stands_in_one_plane_in_the_order_they_were_made(run: Path) -> None:
    (panel,) = versions(read_run(run))
    assert panel.title == "Every version against sft"  # one against sft-2 alone is no line
    shown = [name for name in re.findall(r">([a-z0-9-]+)</text>", str(panel.svg)) if not name.isdigit()]
    assert [name for name in shown if name != "safer"] == ["sft-2", "control", "ppo"]


def test_what_the_metrics_warn_of_stands_beside_the_plots(run: Path) -> None:
    """The KL of this made-up run does not begin at 0."""
    text, _ = read(build_report(run))
    assert "<strong>stale reference</strong>, step 1: the first iteration is" in text


def test_page_is_alone_and_escaped(run: Path) -> None:
    text, reader = read(build_report(run))
    assert "script" not in reader.tags
    assert "img" not in reader.tags
    assert all(url.startswith("#") for url in reader.urls)
    assert "&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt; &amp; &lt;b&gt;" in text
    assert "url(http" not in text
    assert "@import" not in text
    assert "default-src 'none'" in text
    assert "<style" not in text[text.index("</head>") :]
    names = [name for name in reader.ids if not re.fullmatch("[mp][0-9a-f]{10}", name)]
    assert len(names) == len(set(names))


def test_plots_take_the_pages_colours(run: Path) -> None:
    text, _ = read(build_report(run))
    assert "var(--blue)" in text
    assert "#0a0b" not in text
    assert "DejaVu" not in text[text.index("</style>") :]
    assert "#000000" not in text[text.index("</style>") :]


def test_same_run_same_page(run: Path) -> None:
    first = build_report(run).read_bytes()
    assert build_report(run).read_bytes() == first


def test_missing_pieces_leave_sections_out(tmp_path: Path) -> None:
    stages = [{"name": "tokenizer", "kind": "tokenizer", "state": "failed"}, {"name": RUDE}]
    write_json(tmp_path / "status.json", {"run": None, "status": "failed", "stages": stages})
    text, reader = read(build_report(tmp_path))
    assert "script" not in reader.tags
    assert tmp_path.name in text
    for section in ("wins", "dialogues", "rewards", "online", "hacking", "losses", "results"):
        assert f'id="{section}"' not in text
    assert "failed" in text
    write_json(tmp_path / "status.json", {"stages": []})
    assert 'id="pipeline"' not in read(build_report(tmp_path))[0]


def test_clusters_are_shown_and_too_few_have_no_interval(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    asked = {"axis": "safety", "judge": "gold", "model": "ppo", "against": "sft", "value": 0.75, "n": 560}
    counts = {"wins": 300, "ties": 160, "losses": 100}
    some = Result("win_rate", clusters=20, interval=(0.61, 0.86), level=0.95, split="unseen", **asked, **counts)
    few = Result("win_rate", clusters=3, split="elsewhere", **asked, **counts)
    ratings = [RATINGS[i % 4] for i in range(400)]
    drawn = np.random.default_rng(0).normal(1, 1, 400)
    accuracy = reward_accuracy(drawn, np.zeros(400), ratings, [i // 8 for i in range(400)])
    rewards = accuracy.results(axis="safety", model="reward-safety", split="heldout")
    write_results(run / "results.json", [some, few, *rewards])
    text, _ = read(build_report(run))
    assert "61% to 86% · 300 won, 160 tied, 100 lost in 20 clusters" in text
    assert "too few for an interval · 300 won, 160 tied, 100 lost in 3 clusters" in text
    assert "<small>300 won, 160 tied, 100 lost in 3 clusters · too few for an interval</small>" in text
    assert '<td class="number">560 in 20</td>' in text
    assert "in 50<" in re.sub(r"\s+<", "<", text)  # under a bar of the reward model


def test_operations_stand_beside_the_time(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    write_results(run / "results.json", [Result("compute", model="ppo", n=10, value=3.214e12)])
    text, _ = read(build_report(run))
    assert text.count("<small>3.21 TFLOP</small>") == 1
    assert [operations(x) for x in (0, 12, 999, 1000, 2.5e6, 7e21)] == [
        "0 FLOP", "12 FLOP", "999 FLOP", "1 KFLOP", "2.5 MFLOP", "7e+03 EFLOP",
    ]  # fmt: skip


def test_equal_length_and_agreement_stand_beside_the_win_rates(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    asked = {"axis": "safety", "model": "ppo", "against": "sft", "split": "test", "n": 400, "clusters": 400}
    said = [("win_rate", "gold", 0.75), ("win_rate_length_controlled", "gold", 0.61), ("win_rate", "people", 0.7)]
    said += [("agreement:people", "gold", 0.82), ("ac2:people", "gold", 0.66), ("agreement:people", "people", 0.9)]
    rows = [Result(m, judge=j, value=v, interval=(v - 0.05, v + 0.05), level=0.95, **asked) for m, j, v in said]
    write_results(run / "results.json", rows)
    text, _ = read(build_report(run))
    wins = text.split('<section id="wins">')[1].split("</section>")[0]
    assert wins.count("<small>61% [56, 66] at equal length</small>") == 1  # of gold's, and people's has none
    cells = "".join(f"<td>{cell}</td>" for cell in ("gold and people", "safety", "ppo against sft"))
    numbers = '<td class="number">82% [77%, 87%]</td><td class="number">0.66 [0.61, 0.71]</td>'
    assert f"{cells}{numbers}" in wins
    assert "people among themselves" in wins
    assert "Do the judges agree?" not in read(build_report(make_run(tmp_path / "without")))[0]


def test_a_torn_last_line_is_forgiven_and_a_broken_file_is_not(tmp_path: Path) -> None:
    stage = tmp_path / "stages" / "00-sft-1"
    stage.mkdir(parents=True)
    write_json(tmp_path / "status.json", {"stages": [{"name": "sft", "kind": "sft", "directory": str(stage)}]})
    (stage / "metrics.jsonl").write_text('{"step":1,"loss":2.5}\n{"step":2,"lo')
    assert "2.500" in read(build_report(tmp_path))[0]
    (stage / "metrics.jsonl").write_text('{"step":1,"loss"\n{"step":2,"loss":2}\n')
    with pytest.raises(BadInput, match=r"metrics\.jsonl:1: not JSON"):
        build_report(tmp_path)


def test_bad_runs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="not a run"):
        build_report(tmp_path)
    for bad in ([], {"stages": 3}, {"stages": [{"kind": "sft"}]}, {"stages": [{"name": "sft", "directory": 3}]}):
        (tmp_path / "status.json").write_text(json.dumps(bad))
        with pytest.raises(BadInput, match=r"stages|expected an object"):
            build_report(tmp_path)
    assert not (tmp_path / "report").exists()


def test_samples_of_an_unknown_shape_are_named(tmp_path: Path) -> None:
    stage = tmp_path / "stages" / "00-evaluate-1"
    write_json(tmp_path / "status.json", {"stages": [{"name": "e", "kind": "evaluate", "directory": str(stage)}]})
    write_jsonl(stage / "samples.jsonl", [{"prompt": "hello"}])
    with pytest.raises(BadInput, match=r"samples\.jsonl:1: not a sample"):
        build_report(tmp_path)


def test_implied_arrows_are_left_out() -> None:
    parents: dict[str, list[str]] = {"a": [], "b": ["a"], "c": ["a", "b"], "d": ["a", "b", "c"]}
    assert reduced(parents) == {"a": [], "b": ["a"], "c": ["b"], "d": ["c"]}


def test_boxes_never_overlap_and_arrows_point_down() -> None:
    names = [name for name, *_ in STAGES]
    parents = {name: [s.split("/")[0] for s in sources] for name, _, _, sources in STAGES}
    picture = layered(parents)
    at = {node.name: node for node in picture.nodes}
    assert sorted(at) == sorted(names)
    for i, one in enumerate(picture.nodes):
        assert BOX[0] / 2 <= one.x <= picture.width - BOX[0] / 2
        for other in picture.nodes[i + 1 :]:
            assert abs(one.x - other.x) >= BOX[0] or abs(one.y - other.y) >= BOX[1]
    assert all(at[edge.source].y < at[edge.target].y for edge in picture.edges)
    assert [node.name for node in rail(parents).nodes] == names
    assert len(rail(parents).edges) == len(picture.edges)


def test_running_mean_is_centred() -> None:
    assert running_mean([0.0, 3.0, 6.0, 3.0, 0.0], 3) == [0.0, 3.0, 4.0, 3.0, 0.0]
    assert running_mean([2.0] * 9, 5) == [2.0] * 9


def test_untangled_orders_cross_less() -> None:
    parents: dict[str, list[str]] = {"a": [], "b": [], "c": ["b"], "d": ["a"], "e": ["d"], "f": ["c"]}
    at = {node.name: node.x for node in layered(parents).nodes}
    assert (at["a"] - at["b"]) * (at["d"] - at["c"]) > 0
    assert (at["d"] - at["c"]) * (at["e"] - at["f"]) > 0


def test_what_is_kept_by_turn_is_drawn_for_both_models(tmp_path: Path) -> None:
    def row(metric: str, model: str, value: float, axis: str) -> Result:
        interval = (max(0, value - 0.1), min(1, value + 0.1))
        return Result(
            metric, axis, "gold", model, split="validation", n=40, clusters=20, value=value, interval=interval
        )

    run = make_run(tmp_path)
    turns = [2 * i for i in range(1, 11)]
    rows = [
        row(f"{metric}:turn {turn}", model, first - fall * turn, axis)
        for axis in ("seen kinds", "unseen kind")
        for metric in ("kept", "constraint_attention")
        for model, first, fall in (("gatt", 0.95, 0.01), ("<sft>", 0.6, 0.03))
        for turn in reversed(turns)
    ]
    rows += [row("kept", "gatt", 0.9, "seen kinds"), row("kept", "<sft>", 0.25, "seen kinds")]
    write_results(run / "results.json", rows)
    text, _ = read(build_report(run))
    section = text.split('<section id="persistence">')[1].split("</section>")[0]
    assert section.count("<figure>") == 4
    assert "seen kinds · validation · gatt 90% · &lt;sft&gt; 25%" in section
    assert section.count('<span class="key blue">gatt</span>') == 4
    assert "Attention to the instruction" in section
    first = section.split("<svg")[1]
    shown = [int(t) for t in re.findall(r">\s*(\d+)\s*</text>", first)]
    assert shown == turns
    assert '<a href="#persistence">' in text
    assert '<section id="persistence">' not in read(build_report(make_run(tmp_path / "without")))[0]


def sections_of(page: str) -> dict[str, str]:
    found = re.findall(r'<section id="(\w+)">(.*?)</section>', page, re.DOTALL)
    return dict(found)


def test_what_grows_is_drawn_over_what_it_grows_with(tmp_path: Path) -> None:
    def row(metric: str, model: str, value: float, **where: Any) -> Result:
        return Result(metric, model=model, value=value, interval=(value - 0.1, value + 0.1), n=40, clusters=20, **where)

    rows = [row(f"best_of_8:{t}", model, t, judge="reward") for model in ("v1", "sft") for t in (1.2, 0.8)]
    rows += [row(f"self_bleu:{t}", "sft", t, axis=axis) for axis in ("factual", "creative") for t in (0.1, 1.4)]
    for i in (1, 2, 3):
        rows += [
            row("compute", f"rm{i}", 1e12 * i),
            *(
                row(metric, f"rm{i}", 0.5 + 0.1 * i, axis="helpfulness", split="heldout")
                for metric in ("accuracy", "accuracy:significantly_better", "accuracy:negligibly_better_or_unsure")
            ),
        ]
    quantiles = (0.1, 0.25, 0.5, 0.75, 0.9)
    rows += [row(f"score_quantile:{q}", m, q, axis="safety", judge="rm3") for m in ("v1", "sft") for q in quantiles]
    rows += [row(m, model, 0.2, judge="gold") for model in ("v1", "sft") for m in ("violation", "false_refusal")]
    rows.append(row("win_rate", "v1", 0.6, axis="safety", judge="rm3", against="sft"))
    run = make_run(tmp_path)
    write_results(run / "results.json", rows)
    found = sections_of(read(build_report(run))[0])
    temperatures = found["temperatures"]
    assert temperatures.count("<figure>") == 3  # best of 8; factual and creative
    assert [float(t) for t in re.findall(r">\s*([01]\.\d)\s*</text>", temperatures.split("<svg")[1])][:2] == [0.8, 1.2]
    assert "helpfulness · rm1, rm2, rm3 · each on its own held-out pairs" in found["rewards"]
    assert "unsure ones" in found["rewards"]
    assert "How the scores lie" in found["wins"]
    named = re.findall(r">\s*(v1|sft)\s*</text>", found["wins"].split("How the scores lie")[1])
    assert sorted(named) == ["sft", "v1"]
    assert found["attacks"].count("<figure>") == 1
    assert re.findall(r'<span class="key \w+">([^<]+)</span>', found["attacks"]) == [
        "attacks that succeed", "harmless questions refused",
    ]  # fmt: skip
    # two reward models make no line, one model no comparison
    write_results(run / "results.json", [r for r in rows if r.model not in ("rm3", "v1")])
    fewer = sections_of(read(build_report(run))[0])
    assert "attacks" not in fewer
    assert "own held-out pairs" not in fewer["rewards"]


def test_what_choosing_buys_is_drawn_over_its_tokens(tmp_path: Path) -> None:
    def rows(model: str, tokens: float, score: float) -> list[Result]:
        found = {"score": ("gold", score), "chosen_reward": ("reward", 3 * score), "tokens_spent": (None, tokens)}
        return [
            Result(
                metric, "helpfulness", judge, model, n=9, clusters=9, value=value, interval=(value - 0.1, value + 0.1)
            )
            for metric, (judge, value) in found.items()
        ]

    run = make_run(tmp_path)
    points = [
        ("best of 8", 900, 0.7),
        ("best of 2", 300, 0.5),
        ("beam 2×2", 500, 0.6),
        ("beam 2×2 by critic", 400, 0.4),
    ]
    every = [row for how, tokens, score in points for row in rows(f"sft {how}", tokens, score)]
    plain = Result("score", "helpfulness", "gold", "sft", n=9, clusters=9, value=0.3, interval=(0.2, 0.4))
    write_results(run / "results.json", [*every, plain])
    text, _ = read(build_report(run))
    section = text.split('<section id="spending">')[1].split("</section>")[0]
    assert section.count("<figure>") == 2  # gold's score and the reward's own
    assert re.findall(r'<span class="key \w+">([^<]+)</span>', section) == 2 * [
        "sft best of", "sft beam", "sft beam by critic",
    ]  # fmt: skip
    named = re.findall(r">\s*(8|2|2×2)\s*</text>", section.split("<svg")[1])
    assert sorted(named) == ["2", "2×2", "2×2", "8"]
    assert '<section id="spending">' not in read(build_report(make_run(tmp_path / "without")))[0]


def test_versions_stand_in_order_behind_what_they_are_held_against() -> None:
    prompt = Prompt("p", (Message("user", "Well?"),), "helpfulness")
    rows = [
        SampleRow(prompt, {"v1": "one", "sft": "none"}, {"v1": {"helpfulness": 0.5}}),
        SampleRow(prompt, {"v2": "two", "sft": "none"}, {}),
    ]
    found = _in_order(rows)
    assert found == (("sft", "none", ()), ("v1", "one", (("helpfulness", 0.5),)), ("v2", "two", ()))


@pytest.mark.parametrize("widest", [1.5, 4.0, 300.0, 5e7])
def test_equal_factors_are_named_in_characters(widest: float) -> None:
    """Not in a formula's source, which no page sets; and at two places at least."""
    points = [(2.3e11 * x, Estimate(0.7, (0.6, 0.8), 40)) for x in (1.0, widest)]
    drawn = trend([Line("all", "blue", points)], x_label="operations", y_label="accuracy", factors=True)
    assert "$" not in drawn
    assert 2 <= drawn.count("·10") <= 2 * 5  # matplotlib says each twice: as a comment, too
    assert [power(x) for x in (2e13, 5e-4, 2.34e11)] == ["2·10¹³", "5·10⁻⁴", "2.3·10¹¹"]
