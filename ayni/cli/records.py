"""`ayni import` and `ayni export` for preferences: other people's in, ours out, with what was left out and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ayni.cli import say
from ayni.errors import BadInput
from ayni.feedback.address import is_store, without_password
from ayni.files import atomic_file, write_jsonl
from ayni.formats.export import csv_text, hh_rows, trl_rows
from ayni.formats.pairing import Pairing
from ayni.formats.reading import scan
from ayni.formats.rows import ROW_SUFFIXES, suffix_of
from ayni.records import Comparison, to_dict
from ayni.runs.status import located, output_of
from ayni.stage import Kind

EXPORT_FORMATS = ("ayni", "trl", "hh-rlhf", "csv")
_MODELS = (".safetensors", ".bin", ".pth", ".model")


def holds_records(source: Path) -> bool:
    """Whether this is data rather than a model: a file of rows, or a directory of .jsonl and .csv files."""
    source = located(source)
    if not source.is_dir():
        return suffix_of(source) in ROW_SUFFIXES
    suffixes = {suffix_of(file) for file in source.iterdir() if file.is_file()}
    return bool(suffixes & {".jsonl", ".csv"}) and not suffixes & {*_MODELS}


def import_records(
    source: Path, out: Path, kind: Kind | None, pairs_per_prompt: int, seed: int, as_json: bool
) -> dict[str, Any]:
    """{source, output, format, kind, records, skipped}. What the source holds, as our own lines in `out`.

    Judgements become comparisons unless `kind` asks for them as they are. Raises BadInput at the first bad row, and
    when `out` exists; then nothing is written.
    """
    source = located(source)
    if out.suffix != ".jsonl":
        raise BadInput("the records go to a file of lines", path=out, fix="end its name in .jsonl")
    _refuse_existing(out)
    pairing = Pairing(pairs_per_prompt, seed)
    scanned = scan(source, kind, pairing=pairing)
    if kind is None and scanned.kind == "judgements":
        scanned = scan(source, "comparisons", pairing=pairing)
    if scanned.kind == "texts":
        raise BadInput(
            "holds texts, not records", path=source, fix="the stages tokenizer and pretrain read it as it is"
        )
    count = write_jsonl(out, map(to_dict, scanned.records))
    say(f"{source}: {count} {scanned.kind} in the format {scanned.format}")
    _tell_left_out(scanned.skipped)
    if not as_json:
        print(out)
    return {
        "source": str(source),
        "output": str(out),
        "format": scanned.format,
        "kind": scanned.kind,
        "records": count,
        "skipped": dict(scanned.skipped),
    }


def export_records(
    source: str, out: Path, format: str, batches: Sequence[str], heldout: Path | None, as_json: bool
) -> dict[str, Any]:
    """{source, output, format, records, heldout, skipped}. Comparisons of a preference store or a file, for others.

    Items that a store holds out never go to `out`: they go to `heldout`, or nowhere. Raises BadInput for what the
    format cannot say, and when a file exists; then nothing is written.
    """
    for path in (out, heldout):
        if path is not None:
            _refuse_existing(path)
    if heldout == out:
        raise BadInput("held-out comparisons go to a file of their own", path=out, field="heldout")
    if is_store(source):
        kept, apart, skipped = stored(source, batches)
    else:
        if batches or heldout is not None:
            what = "--batch" if batches else "--heldout"
            raise BadInput(f"only a preference store knows what {what} means", path=source)
        kept, apart, skipped = scan(output_of(Path(source), "records.jsonl"), "comparisons").records, [], Counter()
    name = without_password(source)
    if not kept:
        raise BadInput("there are no comparisons to export", path=name)
    if heldout is None and apart:
        skipped["held out (--heldout FILE writes them)"] = len(apart)
    texts = [(out, kept)] + ([(heldout, apart)] if heldout is not None else [])
    files = [(path, _rows(records, format)) for path, records in texts]  # all that can be refused is, before any write
    for path, rows in files:
        _write(path, rows)
    held_out = "" if heldout is None else f", {len(apart)} held out"
    say(f"{name}: {len(kept)} comparisons{held_out}")
    _tell_left_out(skipped)
    if not as_json:
        for path, _ in files:
            print(path)
    return {
        "source": name,
        "output": str(out),
        "format": format,
        "records": len(kept),
        "heldout": len(apart) if heldout is not None else 0,
        "skipped": dict(skipped),
    }


def stored(source: str, batches: Sequence[str]) -> tuple[list[Comparison], list[Comparison], Counter[str]]:
    """(comparisons, those of held-out items, what else stands in the store) of these batches, of all without any."""
    from ayni.feedback.records_of import split
    from ayni.feedback.store import open_store

    with open_store(source) as store:
        known = [batch.id for batch in store.batches()]
        for name in batches:
            if name not in known:
                raise BadInput(f"there is no batch {name!r}", field="batch", fix=f"batches: {', '.join(known)}")
        judged = [each for name in known if name in (batches or known) for each in store.current(name)]
    skipped: Counter[str] = Counter()
    for each in judged:
        if each.entry.kind != "judged":
            skipped[each.entry.kind] += 1
        elif each.item.gold is not None:
            skipped["gold check"] += 1
    return *split(judged), skipped


def _rows(comparisons: Sequence[Comparison], format: str) -> Iterable[Any] | str:
    if format == "trl":
        return trl_rows(comparisons)
    if format == "hh-rlhf":
        return hh_rows(comparisons)
    return csv_text(comparisons) if format == "csv" else [to_dict(c) for c in comparisons]


def _write(path: Path, rows: Iterable[Any] | str) -> None:
    if not isinstance(rows, str):
        write_jsonl(path, rows)
        return
    with atomic_file(path) as temporary:
        temporary.write_bytes(rows.encode())  # a table's line ends are its own


def _tell_left_out(skipped: Counter[str]) -> None:
    for reason, count in skipped.most_common():
        say(f"left out: {count} × {reason}")


def _refuse_existing(out: Path) -> None:
    if out.exists():
        raise BadInput("exists already", path=out, fix="choose another name, or remove it first")
