"""`ayni inspect`: a data file's format, counts and errors; its tokens painted by mask, or by a critic's values."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ayni.cli import VerbFailure, plain
from ayni.cli.stages import checked, tokenizer_path
from ayni.errors import BadInput, BadNumbers
from ayni.files import write_text
from ayni.formats.inspect import inspect_data, sequences_of
from ayni.formats.painting import paint, picture
from ayni.formats.reading import scan
from ayni.records import TokenSequence
from ayni.runs.status import located, output_of
from ayni.text.tokenizer import Tokenizer, load_tokenizer

if TYPE_CHECKING:
    from ayni.model.score_scale import Normalisation


def inspect(
    data: Path,
    model: Path | None,
    critic: Path | None,
    max_tokens: int | None,
    show: int,
    as_json: bool,
    strict: bool = False,
    svg: Path | None = None,
) -> dict[str, Any] | VerbFailure:
    """{path, format, records, turns, errors, tokens, unsupervised, without_eos, truncated}.

    With a critic also `prefixes`: {record, pieces, values} of the sequences shown, one value a token: the critic's of
    the prefix that ends there; and with `svg` a picture of them, whose path it says. Tokens are counted by the model's
    tokenizer, or the critic's where no model is given.
    The same with an error where no row is usable, and when `strict` where any is wrong.
    """
    data = located(data)
    if svg is not None:
        _check_picture(svg, critic)
    judge, tokenizer, normalisation = None, None, None
    if critic is not None:
        from ayni.model.score_scale import ScoreScale
        from ayni.model_directory import load_model, read_extra

        directory = checked(output_of(critic, "model"))
        judge, tokenizer = load_model(directory, expect="score")
        normalisation = ScoreScale.of(read_extra(directory), directory / "ayni.json", "critic").normalisation
    counting = tokenizer if model is None else load_tokenizer(tokenizer_path(model))
    found = inspect_data(data, counting, max_tokens)
    painter = tokenizer or counting
    console = Console(highlight=False, soft_wrap=True)
    if not as_json:
        _table(found, console)
    if painter is not None and judge is None and not as_json:
        for _, sequence in _shown(data, painter, show, max_tokens):
            console.print()
            console.print(paint(sequence, painter))
    if painter is not None and judge is not None:
        limit = min(max_tokens or judge.shape.context, judge.shape.context)
        found["prefixes"], rows = [], []
        for record, sequence in _shown(data, painter, show, limit):
            values = _prefix_values(judge, sequence.tokens, normalisation)
            pieces = [painter.piece(token) for token in sequence.tokens]
            found["prefixes"].append({"record": record, "pieces": pieces, "values": values})
            # from the prefix with which the answer begins: nobody trains a critic on those before
            first = next((i for i, taught in enumerate(sequence.mask) if taught), 1) - 1
            rows.append([(p, v if i >= first else None) for i, (p, v) in enumerate(zip(pieces, values, strict=True))])
            if not as_json:
                _paint_values(sequence, values, painter, console)
        if svg is not None and rows:
            write_text(svg, picture(rows, f"{data.name}: what the critic expects after every token"))
            found["svg"] = str(svg)
    wrong, usable = len(found["errors"]), found["records"]
    if wrong and (strict or not usable):
        what = f"{wrong} of its rows {'is' if wrong == 1 else 'are'} wrong" + ("" if usable else ", and none is usable")
        return VerbFailure(found, BadInput(what, path=data))
    return found


def _check_picture(svg: Path, critic: Path | None) -> None:
    if critic is None:
        raise BadInput("a picture shows what a critic expects", field="svg", fix="give --critic, too")
    if svg.suffix != ".svg" or svg.is_dir():
        # nothing that is read here ends so
        raise BadInput("is written as an SVG", path=svg, field="svg", fix="give it a name that ends in .svg")


def _table(found: dict[str, Any], console: Console) -> None:
    tokens = found["tokens"] or {}
    lines = [(key, found[key]) for key in ("path", "format", "records", "turns")]
    lines += [(f"tokens {key}", value) for key, value in tokens.items()]
    lines += [(key.replace("_", " "), found[key]) for key in ("unsupervised", "without_eos", "truncated")]
    lines += [(f"left out: {reason}", count) for reason, count in found.get("skipped", {}).items()]
    lines.append(("errors", len(found["errors"])))
    for name, value in lines:
        if value is not None:
            console.print(plain(f"{name:20} {value}"), markup=False)
    for error in found["errors"][:20]:
        field = "" if error["field"] is None else f"{error['field']}: "
        text = plain(f"  line {error['line']}: {field}{error['message']}")
        console.print(text, markup=False, style="red")


def _shown(data: Path, tokenizer: Tokenizer, show: int, limit: int | None) -> Iterator[tuple[int, TokenSequence]]:
    """(index of the record, sequence) of the first records, cut at `limit` tokens."""
    for index, record in enumerate(scan(data, strict=False).records[:show]):
        for sequence in sequences_of(record, tokenizer):
            yield index, TokenSequence(sequence.tokens[:limit], sequence.mask[:limit])


def _prefix_values(critic: Any, tokens: list[int], normalisation: Normalisation | None) -> list[float]:
    """The critic's value of every prefix: (n,)."""
    import torch

    from ayni.model.heads import column_values
    from ayni.model.layout import Layout

    with torch.no_grad():
        hidden = critic(torch.tensor(tokens, device=critic.device), Layout.of([len(tokens)], critic.device))
        values = column_values(critic, hidden)
        values = values if normalisation is None else normalisation(values)
    if not values.isfinite().all():
        raise BadNumbers("the critic's values are not finite")
    return values.tolist()


def _paint_values(sequence: TokenSequence, values: list[float], tokenizer: Tokenizer, console: Console) -> None:
    """The colours span the values of the answer's prefixes; where there are no colours, the numbers stand in a list."""
    answer = [i for i, taught in enumerate(sequence.mask) if taught] or list(range(len(values)))
    low, high = (limit(values[i] for i in answer) for limit in (min, max))
    console.print()
    console.print(paint(sequence, tokenizer, [min(max(value, low), high) for value in values]))
    console.print(f"values of the answer's prefixes from {low:.3f} to {high:.3f}, of the whole {values[-1]:.3f}")
    if not console.is_terminal or console.no_color or console.color_system is None:
        for i in answer:
            token = paint(TokenSequence(sequence.tokens[i : i + 1], [True]), tokenizer).plain.rstrip("\n")
            console.print(f"{values[i]:10.3f}  {token}", markup=False)
