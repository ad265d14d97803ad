"""Models of other projects in, ours out: Hugging Face, PEFT, Meta and llama2.c (`ayni import`, `ayni export`)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from ayni.errors import BadInput
from ayni.files import atomic_directory, atomic_file, write_json
from ayni.limits import absent
from ayni.model.adapters import adapter_of, merged
from ayni.model.fields import whole
from ayni.model.llama2c import read_llama2c, write_llama2c
from ayni.model.meta import read_meta, write_meta
from ayni.model.peft_files import is_adapter
from ayni.model.transformer import Transformer
from ayni.model_directory import EXTRA, check_vocabulary, load_model, load_weights, read_extra, save_model, tokenizer_of
from ayni.text.sentencepiece_codec import SentencePieceCodec
from ayni.text.tok_bin import write_tok_bin
from ayni.text.tokenizer import Tokenizer, load_tokenizer

ModelFormat = Literal["hf", "meta", "llama2c"]
_CONTEXT = "context"  # Meta's params.json has no place for it, so it stands in ayni.json


def import_model(src: Path, out: Path, tokenizer: Path | None = None) -> None:
    """Write the model at `src` as a model directory `out`, every weight in the dtype it is stored in.

    `src` is a Hugging Face directory, PEFT's (which stays an adapter of its base, wherever that lies), a Meta directory
    or a llama2.c `.bin`; its tokenizer is found beside it unless given. Raises BadInput when something is missing or
    does not fit, or when `out` exists; then nothing is written.
    """
    src, out = Path(src), Path(out)
    _refuse_existing(out)
    kind, model, chosen = read_model(src, tokenizer)
    extra = {key: value for key, value in read_extra(src).items() if key != _CONTEXT} if src.is_dir() else {}
    name = src.resolve().name
    save_model(out, model, chosen, card={"name": name, "stage": "import", "source": f"{name} ({kind})"}, extra=extra)


def read_model(src: Path, tokenizer: Path | None = None) -> tuple[str, Transformer, Tokenizer]:
    """What `import_model` takes, read whole and checked: its kind (hf, peft, meta, llama2c), the model as it is stored,
    and its tokenizer."""
    kind, model = _read(src)
    chosen = load_tokenizer(Path(tokenizer) if tokenizer else _tokenizer_beside(src, model.shape.vocab))
    check_vocabulary(chosen, model.shape, tokenizer or src)
    if kind == "llama2c" and chosen.vocab_size != model.shape.vocab:
        what = f"mismatched tokenizer: {chosen.vocab_size} ids, but the model has {model.shape.vocab}"
        raise BadInput(what, path=tokenizer or src, field="vocab_size")
    return kind, model, chosen


def _read(src: Path) -> tuple[str, Transformer]:
    if src.is_file() and src.suffix == ".bin":
        return "llama2c", read_llama2c(src)
    if is_adapter(src):
        return "peft", load_weights(src, dtype=None)
    if (src / "config.json").is_file():
        return "hf", load_weights(src, dtype=None)
    if (src / "params.json").is_file():
        # Shape says what it may be
        return "meta", read_meta(src, context=whole(read_extra(src), _CONTEXT, src / EXTRA, 4096))
    if not src.exists():
        raise absent(src)
    fix = "give a Hugging Face directory (config.json), PEFT's, a Meta directory (params.json) or a llama2.c .bin"
    raise BadInput("not a model", path=src, fix=fix)


def _tokenizer_beside(src: Path, vocab: int) -> Path:
    if is_adapter(src):
        return tokenizer_of(src)
    if src.is_dir():
        # Meta keeps one tokenizer.model above the directories of its models.
        above = src.parent / "tokenizer.model"
        inside = any((src / name).is_file() for name in ("tokenizer.model", "tokenizer.json", "tok.bin"))
        return above if not inside and above.is_file() else src
    for name in (f"tok{vocab}.bin", "tok.bin", "tokenizer.bin", "tokenizer.model"):
        if (src.parent / name).is_file():
            return src.parent / name
    raise BadInput("no tokenizer beside it", path=src, fix="give one with --tokenizer")


def export_model(model: Path, out: Path, format: str, *, shards: int = 1) -> None:
    """Write the model directory `model` as `out` in another format, with its tokenizer; an adapter is merged.

    hf and meta write a directory (meta in `shards` files, 1 to 8). llama2c writes a file `out` ending in `.bin` with
    tok.bin beside it, or else a directory with model.bin and tok.bin. Raises BadInput when `out` exists, or for
    what the format cannot hold; then nothing is written.
    """
    model, out = Path(model), Path(out)
    if format not in get_args(ModelFormat):
        raise BadInput(f"{format!r} is not one of {', '.join(get_args(ModelFormat))}", field="format")
    if shards != 1 and format != "meta":
        raise BadInput("only the meta format has shards", field="shards")
    _refuse_existing(out)
    transformer, tokenizer = load_model(model, dtype=None)
    if adapter_of(transformer) is not None:
        transformer = merged(transformer)
    if format == "hf":
        card = {"name": model.name, "stage": "export"}
        save_model(out, transformer, tokenizer, card=card, extra=read_extra(model))
    elif format == "meta":
        with atomic_directory(out) as directory:
            write_meta(directory, transformer, shards=shards)
            tokenizer.save(directory)
            write_json(directory / EXTRA, {**read_extra(model), _CONTEXT: transformer.shape.context})
    elif out.suffix == ".bin":
        _write_llama2c(out, transformer, tokenizer)
    else:
        with atomic_directory(out) as directory:
            _write_llama2c(directory / "model.bin", transformer, tokenizer)


def _write_llama2c(file: Path, model: Transformer, tokenizer: Tokenizer) -> None:
    codec, tok_bin = tokenizer.codec, file.parent / "tok.bin"
    if not isinstance(codec, SentencePieceCodec):
        raise BadInput("llama2.c reads SentencePiece tokenizers only", field="format")
    if tokenizer.vocab_size != model.shape.vocab:
        what = f"llama2.c needs one piece per embedding row: {tokenizer.vocab_size} and {model.shape.vocab}"
        raise BadInput(what, field="vocab_size")
    if file == tok_bin:
        raise BadInput("that is the tokenizer's name", path=file, fix="choose another")
    _refuse_existing(tok_bin)
    with atomic_file(file) as written, atomic_file(tok_bin) as pieces:
        write_llama2c(written, model)
        write_tok_bin(pieces, codec.vocabulary)


def _refuse_existing(out: Path) -> None:
    if out.is_dir() and not any(out.iterdir()):
        return
    if out.exists():
        raise BadInput("exists already", path=out, fix="choose another name, or remove it first")
