"""The page itself: sections filled into one template, written as one file that asks nothing of the network."""

from __future__ import annotations

import shlex
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from ayni.errors import BadInput
from ayni.files import write_text
from ayni.report import comparisons, sections, trends
from ayni.report.pipeline_graph import BOX, Parents, Picture, layered, rail
from ayni.runs.reading import RunData, read_run

FAMILIES = {"records": "makes records", "fits": "fits a model", "online": "learns online", "evaluates": "evaluates"}


def build_report(run_directory: Path) -> Path:
    """Writes `run_directory/report/index.html` and returns its path.

    Sections without data are left out. Raises BadInput when the directory is no run or a file in it is broken.
    """
    page = Path(run_directory) / "report" / "index.html"
    if not page.parent.resolve().is_relative_to(Path(run_directory).resolve()):
        raise BadInput("leads out of the run", path=page.parent, fix="remove the link")
    write_text(page, render_page(read_run(Path(run_directory))))
    return page


def render_page(run: RunData) -> str:
    """The run as one HTML document; everything that came from outside is escaped."""
    parents: Parents = {stage.name: stage.parents for stage in run.stages}
    return template("page.html.jinja").render(
        run=run,
        families=FAMILIES,
        family_seconds=_family_seconds(run),
        slowest=max((stage.seconds or 0 for stage in run.stages), default=0) or 1,
        stages={stage.name: stage for stage in run.stages},
        pictures=_pictures(parents),
        box=BOX,
        cards=sections.cards(run),
        openings=sections.openings(run),
        losses=sections.loss_panels(run),
        rewards=sections.reward_panels(run),
        online=sections.online_panels(run),
        win_rates=comparisons.win_rates(run),
        computed={row.model: sections.operations(row.value or 0.0) for row in run.results if row.metric == "compute"},
        versions=comparisons.versions(run),
        agreements=comparisons.agreements(run),
        claims=comparisons.claims(run),
        spending=comparisons.spending(run),
        scaling=trends.scaling(run),
        scores=trends.scores(run),
        attacks=trends.attacks(run),
        temperatures=trends.temperatures(run),
        persistence=trends.persistence(run),
        selections=comparisons.selections(run),
        hacking=sections.hacking(run),
        dialogues=sections.compared_answers(run),
        table=sections.result_rows(run),
        commands=_commands(run),
    )


def template(name: str) -> Template:
    """A page of this package, which escapes what is filled in."""
    environment = Environment(
        loader=PackageLoader("ayni", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"percent": sections.percent, "duration": sections.duration}
    return environment.get_template(name)


def _pictures(parents: Parents) -> list[tuple[str, Picture]]:
    return [("wide", layered(parents)), ("narrow", rail(parents))] if parents else []


def _family_seconds(run: RunData) -> dict[str, float]:
    times = dict.fromkeys(FAMILIES, 0.0)
    for stage in run.stages:
        times[stage.family] += stage.seconds or 0.0
    return times


def _commands(run: RunData) -> list[tuple[str, str]]:
    """(what for, command): how to talk to the model, go on with the run, and draw this page again."""
    where = shlex.quote(str(run.directory))
    commands = []
    if (stage := run.chat_stage()) is not None:
        commands.append(("Talk to the model", f"ayni chat {shlex.quote(str(stage.directory / 'model'))}"))
    if run.recipe is not None:
        recipe = shlex.quote(str(run.directory / "recipe.yaml"))
        commands.append(("Go on, or rerun what changed", f"ayni run {recipe} --out {where}"))
    commands.append(("Draw this page again", f"ayni report {where}"))
    return commands
