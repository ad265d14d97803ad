"""Tokenizers of three kinds behind one face: SentencePiece (Llama 2's own), llama2.c's tok.bin, tokenizer.json.

BOS and EOS are ids that code adds; no text, whatever it spells, ever becomes one.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

from ayni.errors import BadInput
from ayni.files import atomic_file, read_bytes, write_json, write_text
from ayni.text.chat_template import CHAT_TEMPLATE
from ayni.text.hf_export import special_tokens, tokenizer_config, tokenizer_json
from ayni.text.hf_tokenizer import HuggingFaceCodec
from ayni.text.model_proto import build_model
from ayni.text.sentencepiece_codec import SentencePieceCodec, train_sentencepiece
from ayni.text.tok_bin import read_tok_bin


class Tokenizer:
    """Text to ids and back. Make one with `load_tokenizer` or `train_tokenizer`."""

    def __init__(self, codec: SentencePieceCodec | HuggingFaceCodec) -> None:
        self.codec = codec
        self.vocab_size: int = codec.vocab_size
        self.bos: int = codec.bos
        self.eos: int = codec.eos
        self.unk: int = codec.unk
        self.pad: int | None = codec.pad
        self.special: frozenset[int] = codec.special

    def encode(self, text: str) -> list[int]:
        """The ids of `text`, without BOS or EOS; each call has its own dummy prefix, as in SentencePiece.

        Raises BadInput for half a surrogate pair, which no UTF-8 can hold.
        """
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise BadInput(f"half a surrogate pair at character {error.start}: not Unicode text") from None
        return self.codec.encode(text)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`; special ids decode to nothing. Broken UTF-8 decodes to U+FFFD."""
        plain = [id for id in ids if id not in self.special]
        for id in plain:
            if not 0 <= id < self.vocab_size:
                raise BadInput(f"token id {id} is outside the vocabulary of {self.vocab_size}")
        return self.codec.decode(plain) if plain else ""

    def piece(self, id: int) -> str:
        """The piece itself, e.g. `▁Hello`, `<0x0A>` or `</s>`."""
        return self.codec.piece(id)

    @cached_property
    def fingerprint(self) -> str:
        """Hex sha256 over pieces, scores and special ids: the same for tokenizers that encode alike."""
        return self.codec.fingerprint()

    def save(self, directory: Path) -> None:
        """Write a standard Hugging Face tokenizer that AutoTokenizer loads with equal ids."""
        directory.mkdir(parents=True, exist_ok=True)
        if isinstance(self.codec, SentencePieceCodec):
            pieces = self.codec.vocabulary.pieces
            names = {"unk_token": self.unk, "bos_token": self.bos, "eos_token": self.eos, "pad_token": self.pad}
            named = special_tokens({key: pieces[id].text for key, id in names.items() if id is not None})
            with atomic_file(directory / "tokenizer.model") as temporary:
                temporary.write_bytes(self.codec.model)
            write_text(directory / "tokenizer.json", tokenizer_json(self.codec.vocabulary).to_str(pretty=True))
            add_bos = True
        else:
            named = special_tokens(self.codec.names)
            write_json(directory / "tokenizer.json", self.codec.json)
            add_bos = self.codec.adds_bos
        write_json(directory / "tokenizer_config.json", tokenizer_config(named, add_bos=add_bos))
        write_json(directory / "special_tokens_map.json", named)
        write_text(directory / "chat_template.jinja", CHAT_TEMPLATE)


def _load_directory(path: Path) -> Tokenizer:
    model, fast, bin = (path / name for name in ("tokenizer.model", "tokenizer.json", "tok.bin"))
    if model.is_file():
        tokenizer = Tokenizer(SentencePieceCodec(read_bytes(model), model))
        # A tokenizer.json with more tokens than the model beside it had some added later: they count.
        if fast.is_file():
            extended = Tokenizer(HuggingFaceCodec(fast))
            if extended.vocab_size > tokenizer.vocab_size:
                return extended
        return tokenizer
    if fast.is_file():
        return Tokenizer(HuggingFaceCodec(fast))
    if bin.is_file():
        return load_tokenizer(bin)
    raise BadInput("no tokenizer.model, tokenizer.json or tok.bin in this directory", path=path)


def load_tokenizer(path: Path) -> Tokenizer:
    """A directory, a SentencePiece `.model`, a llama2.c `.bin` or a Hugging Face `.json`; BadInput otherwise."""
    path = Path(path)
    if path.is_dir():
        return _load_directory(path)
    if path.suffix == ".json":
        return Tokenizer(HuggingFaceCodec(path))
    if path.suffix == ".bin":
        return Tokenizer(SentencePieceCodec(build_model(read_tok_bin(path)), path))
    if path.suffix == ".model":
        return Tokenizer(SentencePieceCodec(read_bytes(path), path))
    if not path.exists():
        raise BadInput("no such tokenizer", path=path)
    raise BadInput("not a tokenizer", path=path, fix="give a directory, a .model, a tok.bin or a tokenizer.json")


def train_tokenizer(texts: Iterable[str], vocab_size: int, **settings: Any) -> Tokenizer:
    """SentencePiece BPE with Llama 2's settings (paper §2.2); the same texts give the same tokenizer."""
    return Tokenizer(SentencePieceCodec(train_sentencepiece(texts, vocab_size, **settings)))


class StreamDecoder:
    """Text as tokens arrive: the pushes and the flush together are `decode` of the whole, never half a character.

    (Broken UTF-8 from a tokenizer.json with byte fallback may differ: that library decodes a run of bytes as one.)
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []  # from the last two clean cuts on: earlier text cannot change any more
        self._cut = 0  # ids before it are already out

    def push(self, id: int) -> str:
        """The new text, "" while a character is incomplete."""
        if id in self._tokenizer.special:
            return ""
        self._ids.append(id)
        text = self._pending()
        if not text or text.endswith("\N{REPLACEMENT CHARACTER}"):
            return ""
        self._ids, self._cut = self._ids[self._cut :], len(self._ids) - self._cut
        return text

    def flush(self) -> str:
        """What is still held back: at the end, broken UTF-8 stays broken."""
        text = self._pending()
        self._cut = len(self._ids)
        return text

    def _pending(self) -> str:
        done = self._tokenizer.decode(self._ids[: self._cut])
        return self._tokenizer.decode(self._ids)[len(done) :]
