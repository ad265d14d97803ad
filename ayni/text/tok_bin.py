"""llama2.c's `tok.bin`: int32 longest piece, then (float32 score, int32 length, bytes) for every piece.

llama2.c merges the neighbours whose union has the highest score, leftmost first, after a dummy space and with
bytes for what is unknown: SentencePiece's BPE. So the pieces become a SentencePiece model and one encoder serves.
"""

from __future__ import annotations

import math
import re
import struct
from pathlib import Path

from ayni.errors import BadInput
from ayni.files import atomic_file, read_bytes
from ayni.text.model_proto import BYTE, CONTROL, NORMAL, UNKNOWN, Piece, Vocabulary, check_size

_SPECIAL = {0: ("<unk>", UNKNOWN), 1: ("<s>", CONTROL), 2: ("</s>", CONTROL)}
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


def _entries(data: bytes, path: Path) -> list[tuple[float, bytes]]:
    if len(data) < 4:
        raise BadInput("not a tok.bin: shorter than its header", path=path)
    (longest,) = struct.unpack_from("<i", data)
    at = 4
    entries: list[tuple[float, bytes]] = []
    while at < len(data):
        place = f"piece {len(entries)}"
        if at + 8 > len(data):
            raise BadInput("the file ends inside an entry", path=path, field=place)
        score, size = struct.unpack_from("<fi", data, at)
        at += 8
        if not math.isfinite(score):
            raise BadInput(f"the score is {score}", path=path, field=place)
        if not 0 < size <= longest or at + size > len(data):
            raise BadInput(f"a length of {size} bytes does not fit", path=path, field=place)
        try:
            check_size(len(entries), size)
        except ValueError as error:
            raise BadInput(str(error), path=path, field=place) from None
        entries.append((score, data[at : at + size]))
        at += size
    return entries


def read_tok_bin(path: Path) -> Vocabulary:
    """The vocabulary; ids 0 unk, 1 BOS, 2 EOS, 3–258 bytes, as llama2.c has them built in."""
    pieces = []
    for id, (score, raw) in enumerate(_entries(read_bytes(path), path)):
        try:
            text = raw.decode().replace(" ", "▁")
        except UnicodeDecodeError:
            raise BadInput("not UTF-8", path=path, field=f"piece {id}") from None
        name, kind = _SPECIAL.get(id, (text, BYTE if _BYTE.fullmatch(text) else NORMAL))
        if id in _SPECIAL and text.strip("\n") != name:
            raise BadInput(f"{text!r} stands where llama2.c has {name}", path=path, field=f"piece {id}")
        pieces.append(Piece(name, score, kind))
    if [piece.text for piece in pieces[3:259]] != [f"<0x{byte:02X}>" for byte in range(256)]:
        raise BadInput("ids 3 to 258 are not the 256 byte pieces", path=path)
    return Vocabulary(tuple(pieces), unk=0, bos=1, eos=2, pad=-1)


def write_tok_bin(path: Path, vocabulary: Vocabulary) -> None:
    """The file that llama2.c's `run` reads; BadInput when the ids are not the ones built into it."""
    v = vocabulary
    if (v.unk, v.bos, v.eos) != (0, 1, 2) or any(piece.kind != BYTE for piece in v.pieces[3:259]):
        raise BadInput("llama2.c has unk 0, BOS 1, EOS 2 and bytes from 3 built in; this tokenizer differs")
    named = {v.bos: "\n<s>\n", v.eos: "\n</s>\n"}
    raws = [named.get(id, piece.text.replace("▁", " ")).encode() for id, piece in enumerate(v.pieces)]
    with atomic_file(path) as temporary, open(temporary, "wb") as file:
        file.write(struct.pack("<i", max(map(len, raws))))
        for piece, raw in zip(v.pieces, raws, strict=True):
            file.write(struct.pack("<fi", piece.score, len(raw)) + raw)
