"""The documentation is tested like code: links resolve, examples run, commands parse, every setting is named."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import MISSING, fields
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import typer.main
from test_floors import FLOORS, HOUSE
from tiny import language_model, reward_model, tokenizer

from ayni.cli.app import app_for
from ayni.config import apply_sets, parse_config, parse_yaml
from ayni.errors import BadInput, BadNumbers, NoRoom
from ayni.evaluate.results import read_results
from ayni.formats import known
from ayni.formats.reading import detect, scan
from ayni.maths.statistics import win_rate
from ayni.model_directory import save_model
from ayni.records import Comparison, Constraint, Demonstration, Judgement, Message, Principle, Prompt, Question
from ayni.reward.function import load_function
from ayni.runs.faces import load_stage, stage_kinds
from ayni.runs.recipe import read_recipe
from ayni.train.trainer import Optimiser

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
STAGE_PAGES = ROOT / "docs" / "stages"
_FENCE = re.compile(r"(?:<!-- (?P<note>[^\n]*?) -->\n)?```(?P<kind>\w*)\n(?P<body>.*?)^```$", re.S | re.M)


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def fenced(page: Path) -> list[tuple[str, str, str]]:
    """(kind, the comment before it, the code) of every fenced block."""
    found = _FENCE.finditer(page.read_text(encoding="utf-8"))
    return [(match["kind"], match["note"] or "", match["body"]) for match in found]


def blocks(page: Path, kind: str) -> list[tuple[str, str]]:
    """(the comment before it, the code) of every fenced block of this kind."""
    return [(note, body) for found, note, body in fenced(page) if found == kind]


def prose(page: Path) -> str:
    """The page without its code."""
    return re.sub(r"`[^`\n]*`", "", _FENCE.sub("", page.read_text(encoding="utf-8")))


def section(page: Path, title: str) -> str:
    parts = re.split(r"^## (.*)$", page.read_text(encoding="utf-8"), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))[title]


def first_table(text: str) -> list[list[str]]:
    """The cells of the first table, without its header."""
    found = re.search(r"(?:^\|.*\|\n)+", text + "\n", re.M)
    assert found, text[:200]
    lines = found[0].strip().split("\n")
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


def code(cell: str) -> str:
    found = re.fullmatch(r"\[?`([^`]*)`.*", cell)
    assert found, cell
    return found[1]


# links


def anchors(page: Path) -> set[str]:
    """What a link into this page may point at: headings as GitHub names them, and ids."""
    headings = re.findall(r"^#+ (.*)$", _FENCE.sub("", page.read_text(encoding="utf-8")), re.M)
    slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return slugs | set(re.findall(r'id="([^"]+)"', page.read_text(encoding="utf-8")))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_resolve(page: Path) -> None:
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith("https://"):
            continue
        place, _, anchor = unescape(target).partition("#")
        file = (page.parent / place).resolve() if place else page
        inside = file.exists() and ROOT in (file, *file.parents)
        if not inside or (anchor and anchor not in anchors(file)):
            wrong.append(target)
    assert wrong == []


def test_every_page_is_reached_from_the_readme() -> None:
    seen, waiting = set[Path](), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in seen:
            continue
        seen.add(page)
        for target in re.findall(r"\]\(([^)\s#]+\.md)", prose(page)):
            waiting.append((page.parent / target).resolve())
    unlinked = {name_of(page) for page in PAGES if page not in seen}
    assert unlinked <= {"docs/log.md", "docs/benchmarks.md"}


def test_departures_are_numbered_in_order() -> None:
    text = (ROOT / "docs" / "departures.md").read_text(encoding="utf-8")
    found = re.findall(r'^(\d+)\. <a id="d(\d+)">', text, re.M)
    assert [int(n) for n, _ in found] == list(range(1, len(found) + 1))
    assert all(n == anchor for n, anchor in found)
    cited = [pair for page in PAGES for pair in re.findall(r"\[(?:departure )?(\d+)\]\([^)]*#d(\d+)\)", prose(page))]
    assert cited
    assert all(shown == anchor for shown, anchor in cited)


def test_the_picture_is_self_contained() -> None:
    picture = (ROOT / "docs" / "chain.svg").read_text(encoding="utf-8")
    assert "<title" in picture
    assert re.findall(r"(?:href|src)=|url\((?!#)", picture) == []


# commands


def commands(page: Path) -> Iterator[list[str]]:
    """Every `ayni …` line of the page's shell blocks, continued lines joined."""
    for _, body in blocks(page, "bash"):
        for line in body.replace("\\\n", " ").splitlines():
            if line.startswith("ayni "):
                yield shlex.split(line, comments=True)[1:]


def parse(argv: list[str]) -> dict[str, Any]:
    """What the command line would call its verb with."""
    group: Any = typer.main.get_command(app_for(argv))
    assert argv[0] in group.commands, f"no verb {argv[0]}"
    context = group.commands[argv[0]].make_context(argv[0], argv[1:])
    parameters: dict[str, Any] = context.params
    return parameters


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_parse(page: Path) -> None:
    for argv in commands(page):
        given = parse(argv)
        assert given, argv
        if argv[0] in stage_kinds():
            stage = load_stage(argv[0])
            assert isinstance(parse_config(stage.config, apply_sets({}, given["set_"])), stage.config)
        elif argv[0] == "run" and given["recipe"].name == "mini.yaml":
            assert read_recipe(ROOT / given["recipe"], given["set_"]).stages


def test_make_targets_exist() -> None:
    rules = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    named = {
        match for page in PAGES for match in re.findall(r"(?:^|`)make ([a-z]+)", page.read_text(encoding="utf-8"), re.M)
    }
    assert {"demo", "test", "install", "check", "torture"} <= named <= rules


def test_readme_opens_with_the_two_commands() -> None:
    title, _, rest = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n\n")
    what, _, after = rest.partition("\n\n")
    assert title == "# ayni"
    assert what.startswith("**ayni**")
    assert re.match(r"```bash\nmake demo +#.*\nmake test +#.*\n```", after)


def test_readme_names_every_verb() -> None:
    table = first_table(section(ROOT / "README.md", "Commands"))
    group: Any = typer.main.get_command(app_for([]))
    assert sorted(code(row[0]) for row in table) == sorted(group.commands)


# examples


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What `make demo` leaves, in miniature: the stages that the README's example opens."""
    stages = tmp_path / "runs" / "mini" / "stages"
    save_model(stages / "15-v2-ppo-00000000" / "model", language_model(), tokenizer())
    save_model(stages / "11-helpfulness2-00000000" / "model", reward_model(), tokenizer())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_readme_python_runs(demo: Path) -> None:
    ((_, body),) = blocks(ROOT / "README.md", "python")
    assert len(body.splitlines()) <= 16
    named = re.findall(r'glob\("\*-([\w-]+)-\*/model"\)', body)
    assert set(named) <= {stage.name for stage in read_recipe(ROOT / "recipes" / "mini.yaml").stages}
    values: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()) as output:
        exec(body, values)
    assert len(values["samples"]) == 4
    assert output.getvalue().rstrip("\n") in {sample.text for sample in values["samples"]}


def test_the_tours_columns_are_what_batch_of_makes() -> None:
    page = ROOT / "docs" / "tour.md"
    ((_, body),) = blocks(page, "python")
    values: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(body, values)
    batch = values["batch"]
    rows = {row[0].strip("`"): row[1:] for row in first_table(section(page, "Flat batches"))}
    assert [int(x) for x in rows["tokens"]] == batch.tokens.tolist()
    assert [int(x) for x in rows["targets"]] == batch.targets.tolist()
    assert [int(x) for x in rows["layout.positions"]] == batch.layout.positions.tolist()
    assert [x == "✓" for x in rows["mask"]] == batch.mask.tolist()
    assert batch.layout.offsets.tolist() == [0, 4, 9]
    assert batch.layout.ends.tolist() == [3, 8]


def test_the_tours_recipe_reads(tmp_path: Path) -> None:
    (_, body), (_, rounds) = blocks(ROOT / "docs" / "tour.md", "yaml")
    (tmp_path / "tiny.yaml").write_text(body, encoding="utf-8")
    assert [stage.name for stage in read_recipe(tmp_path / "tiny.yaml").stages] == [
        "village",
        "tokenizer",
        "base",
        "sft",
    ]
    each = parse_yaml(rounds)[0]["rounds"]["each"]
    kinds = {name: load_stage(stage["kind"]).kind for name, stage in each.items()}
    assert kinds == {"samples{n}": "reject", "ppo{n}": "ppo"}


@pytest.mark.parametrize("path", ["trainer.py sft.py", "objectives.py gradient.py dpo.py"])
def test_the_afternoon_is_as_short_as_promised(path: str) -> None:
    tour = (ROOT / "docs" / "tour.md").read_text(encoding="utf-8").partition("\n## ")[0]
    files = ["README.md", "ayni/train/batch.py"]
    for name in path.split():
        (file,) = {found for found in re.findall(r"\((?:\.\./)(ayni/[\w/]+\.py)\)", tour) if found.endswith(f"/{name}")}
        files.append(file)
    assert sum(len((ROOT / file).read_text(encoding="utf-8").splitlines()) for file in files) < 800


FORMATS, RECORDS = ROOT / "docs" / "formats.md", ROOT / "docs" / "records.md"
EXAMPLES = [
    (note, suffix, body)
    for page in (FORMATS, RECORDS)
    for suffix in ("json", "jsonl", "csv")
    for note, body in blocks(page, suffix)
    if note
]


@pytest.mark.parametrize(("note", "suffix", "body"), EXAMPLES, ids=[note for note, _, _ in EXAMPLES])
def test_example_files_read(note: str, suffix: str, body: str, tmp_path: Path) -> None:
    found = re.fullmatch(r"reads as (\w+): (\w+)", note)
    assert found
    file = tmp_path / f"example.{suffix}"
    file.write_text(body, encoding="utf-8")
    assert detect(file).name == found[2]
    kind: Any = found[1]
    assert len(scan(file, kind).records) == len(body.splitlines()) - (suffix == "csv")


def test_every_format_is_listed_with_what_it_is_read_as() -> None:
    rows = first_table(FORMATS.read_text(encoding="utf-8").split("\n### Every format\n")[1])
    assert [(code(row[0]), row[2]) for row in rows] == [(found.name, ", ".join(found.kinds)) for found in known.FORMATS]


@pytest.mark.parametrize(
    "record",
    [Comparison, Prompt, Judgement, Demonstration, Constraint, Principle, Question],
    ids=lambda record: record.__name__,
)
def test_the_record_page_names_every_field_with_its_default(record: Any) -> None:
    page = RECORDS.read_text(encoding="utf-8")
    table = page.split(f"\n| {record.__name__} | default | meaning |\n", 1)[1].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.split("\n")[1:]]
    documented = {name: row[1] for row in rows for name in re.findall(r"`(\w+)`", row[0])}
    assert documented.keys() == {field.name for field in fields(record)}
    for field in fields(record):
        default = {MISSING: "required", None: "none", "": "empty"}.get(field.default, f"`{field.default}`")
        assert documented[field.name] == default, field.name


def test_the_reward_of_your_own_runs(tmp_path: Path) -> None:
    ((_, body),) = blocks(RECORDS, "python")
    (tmp_path / "my_score.py").write_text(body, encoding="utf-8")
    asked = Prompt("p", (Message("user", "Who sings?"),))
    scores = load_function(f"{tmp_path / 'my_score.py'}:reward").score_answers([asked, asked], ["x" * 80, "x" * 70])
    assert scores.tolist() == [0, -10]


def test_the_example_error_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = next(body for _, body in blocks(FORMATS, "text") if body.startswith("bad.jsonl:2"))
    monkeypatch.chdir(tmp_path)
    asked, answered = {"role": "user", "content": "Who sings?"}, {"role": "assistant", "content": "The river."}
    rows = [{"messages": [asked, answered]}, {"messages": [asked, asked]}]
    Path("bad.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with pytest.raises(BadInput) as caught:
        scan(Path("bad.jsonl"))
    assert str(caught.value) == output.strip()


def test_the_example_results_are_valid(tmp_path: Path) -> None:
    (body,) = [body for note, body in blocks(FORMATS, "json") if not note]
    (tmp_path / "results.json").write_text(body, encoding="utf-8")
    (row,) = read_results(tmp_path / "results.json")
    assert row.wins is not None
    assert row.ties is not None
    assert row.losses is not None
    estimate = win_rate(row.wins, row.ties, row.losses)
    assert row.value == pytest.approx(estimate.value, abs=5e-5)
    assert row.interval == pytest.approx(estimate.interval, abs=5e-5)


def test_exit_codes_are_those_of_the_errors() -> None:
    table = first_table(section(FORMATS, "Errors and exit codes"))
    assert [row[0] for row in table] == ["0", "1", "2", "3", "4", "130, 143"]
    assert [error.exit_code for error in (BadInput, NoRoom, BadNumbers)] == [2, 3, 4]


# stages


@pytest.mark.parametrize("kind", stage_kinds())
def test_stage_page_names_every_setting_with_its_default(kind: str) -> None:
    config = load_stage(kind).config
    text = section(STAGE_PAGES / f"{kind}.md", "Settings")
    if not config.model_fields:
        assert text.strip() == "None."
        return
    rows = first_table(text)
    documented = {code(row[0]): parse_yaml(code(row[1]))[0] for row in rows}
    assert len(documented) == len(rows)
    assert documented.keys() == config.model_fields.keys()
    assert config.model_validate(documented) == config()


@pytest.mark.parametrize("kind", stage_kinds())
def test_stage_page_names_every_input(kind: str) -> None:
    inputs = load_stage(kind).inputs
    text = section(STAGE_PAGES / f"{kind}.md", "Inputs")
    if not inputs:
        assert text.strip() == "None."
        return
    rows = first_table(text)
    assert {code(row[0]): code(row[1]) for row in rows} == {name: spec.default for name, spec in inputs.items()}
    for row in rows:
        spec = inputs[code(row[0])]
        assert ("optional" in row[2]) == spec.optional, row
        assert ("a list" in row[2]) == spec.many, row


@pytest.mark.parametrize("kind", [*stage_kinds(), "chat"])
def test_stage_page_has_a_command_of_its_own(kind: str) -> None:
    assert kind in {argv[0] for argv in commands(STAGE_PAGES / f"{kind}.md")}


def test_every_stage_has_a_page_and_every_page_a_stage() -> None:
    assert {page.stem for page in STAGE_PAGES.glob("*.md")} == {*stage_kinds(), "chat", "README"}


@pytest.mark.parametrize("kind", stage_kinds())
def test_stage_page_names_every_output(kind: str) -> None:
    text = section(STAGE_PAGES / f"{kind}.md", "Outputs")
    left = [path for path in load_stage(kind).face.leaves if "*" not in path]
    assert [path for path in left if f"`{path}`" not in text and f"`{path}/`" not in text] == []


FAMILIES = {"makes records": "records", "fits": "fits", "online": "online", "measures": "evaluates"}


def test_the_stages_stand_in_their_families() -> None:
    real = {kind: load_stage(kind).face.family for kind in stage_kinds()}
    table = first_table((STAGE_PAGES / "README.md").read_text(encoding="utf-8"))
    assert {re.findall(r"\w+", row[0])[0]: FAMILIES[row[1]] for row in table} == real
    text = section(ROOT / "docs" / "tour.md", "The idea in one breath")
    toured = {
        kind: FAMILIES[row[0]] for row in first_table(text) for kind in re.findall(r"\w+", row[2]) if kind in real
    }
    measures = re.findall(r"\w+", text.split("only measure: ")[1].partition(".")[0])
    assert toured | {kind: "evaluates" for kind in measures if kind in real} == real


def test_optimiser_settings_are_listed_with_their_defaults() -> None:
    rows = first_table(section(STAGE_PAGES / "README.md", "The optimiser"))
    documented = {code(row[0]): parse_yaml(code(row[1]))[0] for row in rows}
    assert documented.keys() == Optimiser.model_fields.keys()
    assert Optimiser.model_validate(documented) == Optimiser()


def test_chat_options_are_listed() -> None:
    rows = first_table(section(STAGE_PAGES / "chat.md", "Options"))
    group: Any = typer.main.get_command(app_for(["chat"]))
    options = {option for p in group.commands["chat"].params for option in p.opts if option.startswith("--")}
    assert {code(row[0]) for row in rows} == options - {"--help"}


# the map


def test_the_map_points_at_what_exists() -> None:
    places = re.findall(r"`(ayni/[\w/]+\.py):(\w+)`", (ROOT / "docs" / "map.md").read_text(encoding="utf-8"))
    assert len(places) > 30
    for file, name in places:
        body = ast.parse((ROOT / file).read_text(encoding="utf-8")).body
        defined = {node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        targets = [t for n in body if isinstance(n, ast.Assign) for t in n.targets]
        targets += [n.target for n in body if isinstance(n, ast.AnnAssign)]
        assert name in defined | {t.id for t in targets if isinstance(t, ast.Name)}, f"{file}:{name}"


def test_what_to_touch_exists_and_is_little() -> None:
    for row in first_table(section(ROOT / "docs" / "map.md", "Adding something")):
        files = re.findall(r"`([\w/]+\.(?:py|md|jinja|html\.jinja))`", row[1])
        assert len(files) <= 6, row[0]
        assert [file for file in files if "NAME" not in file and not (ROOT / file).is_file()] == [], row[0]


def test_the_floors_are_those_of_the_house() -> None:
    rows = first_table(section(ROOT / "docs" / "map.md", "Floors"))
    parts = {path.stem for path in HOUSE.iterdir() if path.name[0] not in "._" and path.suffix in ("", ".py")}
    documented = [set(re.findall(r"`(\w+)`", row[1])) for row in rows]
    assert [row[0] for row in rows] == [str(n) for n in range(len(FLOORS))]
    assert set().union(*documented) == parts
    assert all(named <= floor for named, floor in zip(documented, FLOORS, strict=True))
