"""The verbs and their options. Each body lives in a file of its own and is imported when it is called."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ayni import __version__
from ayni.cli import VerbFailure
from ayni.cli.stages import verb_of
from ayni.errors import BadInput
from ayni.runs.faces import stage_kinds, summary_of

Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, everything else on stderr.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress.")]
Set = Annotated[list[str], typer.Option("--set", help="One setting, KEY=VALUE; may be repeated.")]
Temperature = Annotated[float, typer.Option(min=0, help="0 is greedy.")]
TopP = Annotated[float, typer.Option(min=0, max=1, help="Keep the likeliest tokens with this mass.")]
MaxTokens = Annotated[int, typer.Option(min=1, help="The longest answer.")]
BestOf = Annotated[int, typer.Option(min=1, help="Answers to choose from (with --reward).")]
ChosenBy = Annotated[str | None, typer.Option(help="Who chooses: a reward model, FILE.py:FUNCTION or an http address.")]
SafetyBy = Annotated[
    str | None, typer.Option(help="A safety reward model beside it: it decides where an answer is unsafe.")
]
Threshold = Annotated[float, typer.Option(min=0, max=1, help="Safety below which an answer is unsafe.")]
SearchBy = Annotated[
    Literal["beam", "tree"] | None, typer.Option(help="Look for an answer step by step (with --reward or --critic).")
]
GuidedBy = Annotated[Path | None, typer.Option(help="PPO's critic, which values partial answers in a search.")]
Width = Annotated[int, typer.Option(min=1, max=1024, help="Of a beam: partial answers that are kept.")]
Expand = Annotated[int, typer.Option(min=1, max=1024, help="Of a search: continuations of each.")]
Step = Annotated[int, typer.Option(min=1, help="Of a search: the most tokens of a step.")]
Sentences = Annotated[bool, typer.Option(help="Of a search: a step ends with its sentence, too.")]
Budget = Annotated[int, typer.Option(min=1, help="Of a tree: tokens, read and drawn, after which nothing grows.")]
Output = Annotated[Path | None, typer.Option(help="File for the lines; stdout without it.")]
Value = dict[str, Any] | VerbFailure | None

WORK, TALK, MODELS, LOOK = "Make", "Use", "Bring and take", "Look"


def app_for(argv: Sequence[str]) -> typer.Typer:
    """The whole application for this command line: only the verb it names is made in full."""
    app = typer.Typer(
        help="The whole Llama 2 to Llama 2-Chat system, from a corpus to a model you talk to.",
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_top)
    app.command("run", rich_help_panel=WORK)(_run)
    for kind in stage_kinds():
        if argv and argv[0] == kind:
            app.command(kind)(verb_of(kind))
        elif not argv or argv[0].startswith("-"):
            app.command(kind, help=summary_of(kind), rich_help_panel="Stages")(_nothing)
        else:
            app.command(kind)(_nothing)
    for name, panel, body in (
        ("chat", TALK, _chat),
        ("generate", TALK, _generate),
        ("annotate", TALK, _annotate),
        ("score", TALK, _score),
        ("encode", TALK, _encode),
        ("inspect", LOOK, _inspect),
        ("report", LOOK, _report),
        ("compare", LOOK, _compare),
        ("doctor", LOOK, _doctor),
        ("lineage", LOOK, _lineage),
        ("import", MODELS, _import),
        ("export", MODELS, _export),
    ):
        app.command(name, rich_help_panel=panel)(body)
    return app


def _nothing() -> None:
    """Stands in for a verb that this command line does not call."""


def _version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


def _top(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="The version.")] = False,
) -> None:
    pass


def _run(
    recipe: Annotated[Path, typer.Argument(help="The recipe.")],
    out: Annotated[Path | None, typer.Option(help="The run's directory (default: runs/NAME).")] = None,
    set_: Set = [],  # noqa: B006 (typer copies it)
    only: Annotated[list[str], typer.Option(help="Run this stage and what it needs; may be repeated.")] = [],  # noqa: B006
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would run, write nothing.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over (with --only: only those stages).")] = False,
    processes: Annotated[
        int | None,
        typer.Option(min=1, max=256, help="Processes that share the work and this machine's cores (the recipe's)."),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> Value | int:
    """Run a recipe: finished stages are reused, changed ones rerun, interrupted ones continue."""
    if not dry_run and "WORLD_SIZE" not in os.environ:
        from ayni.cli.processes import launch, wanted

        if (count := processes or wanted(recipe, set_)) > 1:
            return launch(count)
    from ayni.cli.recipe import run

    return run(recipe, out, set_, only=only, dry_run=dry_run, fresh=fresh, quiet=quiet, as_json=as_json)


def _chat(
    model: Annotated[Path, typer.Argument(help="A model directory, or the stage or run that made it.")],
    system: Annotated[str, typer.Option(help="The system message.")] = "",
    best_of: BestOf = 1,
    reward: ChosenBy = None,
    reward_safety: SafetyBy = None,
    threshold: Threshold = 0.15,
    search: SearchBy = None,
    critic: GuidedBy = None,
    width: Width = 2,
    expand: Expand = 2,
    step: Step = 32,
    sentences: Sentences = True,
    budget: Budget = 1000,
    temperature: Temperature = 0.6,
    top_p: TopP = 0.9,
    max_tokens: MaxTokens = 256,
    seed: int = 0,
) -> None:
    """Talk to a model. Ctrl-C stops an answer, Ctrl-D ends; /help lists the commands."""
    from ayni.cli.chat import chat
    from ayni.cli.choosing import Choice

    choice = Choice(best_of, reward, reward_safety, threshold, search, critic, width, expand, step, sentences, budget)
    chat(model, system, choice, temperature, top_p, max_tokens, seed)


def _annotate(
    store: Annotated[str, typer.Argument(help="The preference store: a file, or postgresql+psycopg://…")],
    host: Annotated[str, typer.Option(help="The address to serve on; any but this machine's own needs --login.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8080,
    login: Annotated[bool, typer.Option("--login", help="People sign in by invitation.")] = False,
    name: Annotated[list[str], typer.Option(help="A host name that people type; may be repeated.")] = [],  # noqa: B006
    https: Annotated[bool, typer.Option("--https", help="A proxy in front speaks https.")] = False,
    annotator: Annotated[str, typer.Option(help="Who judges where nobody signs in.")] = "me",
    invite: Annotated[str | None, typer.Option(help="Print an admin's invitation for this name.")] = None,
    model: Annotated[list[Path], typer.Option(help="Answers the prompts people write; one or two.")] = [],  # noqa: B006
    temperature: Annotated[list[float], typer.Option(min=0, help="Of their answers, in turn.")] = [0.7, 1.0],  # noqa: B006
    max_tokens: MaxTokens = 256,
    seed: int = 0,
) -> None:
    """Serve the page where people compare answers; Ctrl-C stops it."""
    from ayni.cli.annotate import annotate
    from ayni.quality.page_measures import quality_of

    annotate(store, host, port, login, name, https, annotator, invite, model, temperature, max_tokens, seed, quality_of)


def _generate(
    model: Annotated[Path, typer.Argument(help="A model directory, or the stage or run that made it.")],
    prompts: Annotated[Path | None, typer.Option(help='Lines {"messages"} or {"text"}.')] = None,
    text: Annotated[str | None, typer.Option(help="Continue this text; only the continuation is printed.")] = None,
    output: Output = None,
    n: Annotated[int, typer.Option("--n", min=1, max=100_000, help="Samples per prompt.")] = 1,
    temperature: Temperature = 0.6,
    top_p: TopP = 0.9,
    repetition_penalty: Annotated[float, typer.Option(min=1, help="Of tokens that the answer holds already.")] = 1.0,
    max_tokens: MaxTokens = 256,
    seed: int = 0,
    best_of: BestOf = 1,
    reward: ChosenBy = None,
    reward_safety: SafetyBy = None,
    threshold: Threshold = 0.15,
    search: SearchBy = None,
    critic: GuidedBy = None,
    width: Width = 2,
    expand: Expand = 2,
    step: Step = 32,
    sentences: Sentences = True,
    budget: Budget = 1000,
    as_json: Json = False,
) -> Value:
    """Sample answers or continuations, with their log-probabilities."""
    from ayni.cli.choosing import Choice
    from ayni.cli.generate import generate
    from ayni.rollout.sampling import Sampling

    choice = Choice(best_of, reward, reward_safety, threshold, search, critic, width, expand, step, sentences, budget)
    sampling = Sampling(temperature, top_p, max_tokens, repetition_penalty)
    return generate(model, prompts, text, output, n, sampling, seed, choice, as_json)


def _score(
    reward_model: Annotated[
        str, typer.Argument(help="A reward model's directory or stage, FILE.py:FUNCTION or an http address.")
    ],
    data: Annotated[Path, typer.Argument(help="Comparisons or dialogues.")],
    output: Output = None,
    as_json: Json = False,
) -> Value:
    """Score comparisons or dialogues: raw scores, before sigmoid and margin."""
    from ayni.cli.score import score

    return score(reward_model, data, output, as_json)


def _encode(
    tokenizer: Annotated[Path, typer.Argument(help="A tokenizer or a model directory.")],
    file: Annotated[Path, typer.Argument(help='Lines {"text"} or {"messages"}.')],
    output: Output = None,
    as_json: Json = False,
) -> Value:
    """Text or dialogues to tokens and mask."""
    from ayni.cli.encode import encode

    return encode(tokenizer, file, output, as_json)


def _inspect(
    data: Annotated[str, typer.Argument(help="A data file, a directory of them, or a preference store (file or URL).")],
    model: Annotated[Path | None, typer.Option(help="A tokenizer or model: counts tokens and paints them.")] = None,
    critic: Annotated[Path | None, typer.Option(help="A critic: paints its value of every prefix.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Where training would cut a row.")] = None,
    svg: Annotated[Path | None, typer.Option(help="With --critic: the painted tokens as a picture, FILE.svg.")] = None,
    show: Annotated[int, typer.Option(min=0, help="Records to paint.")] = 2,
    strict: Annotated[bool, typer.Option("--strict", help="End with 2 when any row is wrong.")] = False,
    as_json: Json = False,
) -> Value:
    """What is in a data file: its format, counts, errors, and how it looks to a model.

    Of a preference store: how far annotators agree, gold checks, screening, and what was compared.
    """
    from ayni.errors import BadInput
    from ayni.feedback.address import is_store

    if is_store(data):
        if strict:
            raise BadInput("--strict is about the rows of data files, and this is a preference store", path=data)
        from ayni.cli.inspect_store import inspect_store

        return inspect_store(data, model, critic or svg, as_json)
    from ayni.cli.inspect import inspect

    return inspect(Path(data), model, critic, max_tokens, show, as_json, strict, svg)


def _report(
    directory: Annotated[Path, typer.Argument(metavar="RUN", help="The directory of a run, or of one stage.")],
    as_json: Json = False,
) -> Value:
    """Write the run's report: one self-contained HTML page."""
    from ayni.report import build_report

    page = str(build_report(directory))
    if not as_json:
        print(page)
    return {"report": page}


def _compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="The runs, of one recipe or of several parts.")],
    out: Annotated[Path, typer.Option(help="Where the page and results.json go.")] = Path("runs/compared"),
    control: Annotated[
        str | None, typer.Option(help="The method all others are held against (default: random, where there is one).")
    ] = None,
    judge: Annotated[
        list[str], typer.Option(metavar="[AXIS=]NAME", help="Who says what is better (default: gold); may be repeated.")
    ] = [],  # noqa: B006
    as_json: Json = False,
) -> Value:
    """Compare methods from one start: worth by the judge, cost, and what is undecided."""
    from ayni.cli.compare import compare

    return compare(runs, out, control, judge, as_json)


def _doctor(
    what: Annotated[
        str | None,
        typer.Argument(metavar="[PATH]", help="A run, stage, model, checkpoint or preference store (file or URL)."),
    ] = None,
    gpus: Annotated[bool, typer.Option("--gpus", help="Check on the GPU what no CPU can test.")] = False,
    as_json: Json = False,
) -> Value:
    """What this machine offers; with PATH, whether everything there is sound, and how to go on."""
    if gpus:
        from ayni.cli.preflight import preflight

        return preflight(as_json)
    from ayni.cli.doctor import doctor

    return doctor(what, as_json)


def _lineage(
    model: Annotated[Path, typer.Argument(help="A model, or anything else that a stage made; or an exported model.")],
    as_json: Json = False,
) -> Value:
    """Which stages, data and settings made a model, verified by hash."""
    from ayni.cli.lineage import show_lineage

    return show_lineage(model, as_json)


def _import(
    source: Annotated[
        Path,
        typer.Argument(help="Records of any known format, a Hugging Face, PEFT or Meta directory, a llama2.c .bin."),
    ],
    out: Annotated[Path, typer.Argument(help="The new .jsonl file, or model directory.")],
    tokenizer: Annotated[Path | None, typer.Option(help="A model's, where it does not lie beside it.")] = None,
    kind: Annotated[
        Literal["comparisons", "demonstrations", "judgements", "prompts"] | None,
        typer.Option("--as", help="What to read records as (default: what they are; ratings as comparisons)."),
    ] = None,
    pairs_per_prompt: Annotated[int, typer.Option(min=1, help="Of ratings: the most pairs of one prompt.")] = 6,
    seed: Annotated[int, typer.Option(help="Of ratings: draws the pairs where there are more.")] = 0,
    as_json: Json = False,
) -> Value:
    """Other people's preferences, ratings and dialogues as our records; or their models as a model directory."""
    from ayni.cli.records import holds_records, import_records

    if holds_records(source):
        if tokenizer is not None:
            raise BadInput("records need no tokenizer", field="--tokenizer")
        return import_records(source, out, kind, pairs_per_prompt, seed, as_json)
    if kind is not None:
        raise BadInput(f"{source}: a model is read as nothing else", field="--as")
    from ayni.cli.weights import import_weights

    return import_weights(source, out, tokenizer, as_json)


def _export(
    source: Annotated[str, typer.Argument(help="A preference store (file or URL), comparisons, or a model.")],
    out: Annotated[Path, typer.Argument(help="What to write.")],
    format_: Annotated[
        Literal["ayni", "trl", "hh-rlhf", "csv", "hf", "meta", "llama2c"],
        typer.Option("--format", help="Of comparisons: ayni, trl, hh-rlhf, csv. Of a model: hf, meta, llama2c."),
    ],
    batch: Annotated[list[str], typer.Option(help="Of a store, only this batch; may be repeated.")] = [],  # noqa: B006
    heldout: Annotated[Path | None, typer.Option(help="Where a store's held-out comparisons go.")] = None,
    as_json: Json = False,
) -> Value:
    """Write preferences or a model for others to read."""
    from ayni.cli.records import EXPORT_FORMATS, export_records

    if format_ in EXPORT_FORMATS:
        return export_records(source, out, format_, batch, heldout, as_json)
    if batch or heldout is not None:
        raise BadInput(f"{source}: a model has no batches and nothing held out", field="--format")
    from ayni.cli.weights import export_weights

    return export_weights(Path(source), out, format_, as_json)
