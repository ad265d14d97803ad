"""SentencePiece's model file (a protobuf `ModelProto`), read and written without protobuf.

Only the fields that decide how text is encoded are kept. Field numbers: sentencepiece_model.proto.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

MOST_PIECES = 1 << 20
LONGEST_PIECE = 1 << 12  # characters: what a text may grow by as it is decoded
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
BPE = 2  # TrainerSpec.model_type
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True, slots=True)
class Piece:
    text: str
    score: float  # fp32; for BPE, minus the rank of the merge
    kind: int = NORMAL


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What a SentencePiece BPE model is: its pieces in id order, its special ids, its normalisation."""

    pieces: tuple[Piece, ...]
    unk: int
    bos: int  # -1: the model has none
    eos: int
    pad: int
    model_type: int = BPE
    byte_fallback: bool = True
    charsmap: bytes = b""  # empty: identity normalisation
    add_dummy_prefix: bool = True
    remove_extra_whitespaces: bool = False
    escape_whitespaces: bool = True
    whitespace_as_suffix: bool = False


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 64, 7):
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
    raise ValueError("a number has more than 64 bits")


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(field number, value) of one message: an integer, or the raw bytes of anything else."""
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        wire = key & 7
        if wire == _VARINT:
            value, at = _read_varint(data, at)
            yield key >> 3, value
            continue
        if wire == _BYTES:
            size, at = _read_varint(data, at)
        elif wire in (_FIXED32, _FIXED64):
            size = 4 if wire == _FIXED32 else 8
        else:
            raise ValueError(f"wire type {wire} is unknown")
        if at + size > len(data):
            raise ValueError("the file ends inside a field")
        yield key >> 3, data[at : at + size]
        at += size


def _message(data: bytes) -> dict[int, int | bytes]:
    return dict(_fields(data))


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number stands where text belongs")
    return value


def _int(value: int | bytes) -> int:
    if isinstance(value, bytes):
        raise ValueError("text stands where a number belongs")
    return value - (1 << 64) if value >= 1 << 63 else value


def _piece(data: bytes) -> Piece:
    fields = _message(data)
    (score,) = struct.unpack("<f", _bytes(fields.get(2, bytes(4))))
    return Piece(_bytes(fields.get(1, b"")).decode(), score, _int(fields.get(3, NORMAL)))


def check_size(count: int, longest: int) -> None:
    """ValueError for a vocabulary that no model has."""
    if count > MOST_PIECES:
        raise ValueError(f"more than {MOST_PIECES} pieces")
    if longest > LONGEST_PIECE:
        raise ValueError(f"a piece of {longest} characters; the longest may have {LONGEST_PIECE}")


def _once(before: dict[int, int | bytes] | None, value: int | bytes) -> dict[int, int | bytes]:
    # protobuf would merge a second one into the first, and we would not know what SentencePiece knows
    if before is not None:
        raise ValueError("a part of it stands twice")
    return _message(_bytes(value))


def parse_model(data: bytes) -> Vocabulary:
    """The vocabulary of a serialized model; ValueError, IndexError or struct.error when it is no such thing."""
    pieces: list[Piece] = []
    trainer: dict[int, int | bytes] | None = None
    normalizer: dict[int, int | bytes] | None = None
    for number, value in _fields(data):
        if number == 1:
            pieces.append(_piece(_bytes(value)))
            check_size(len(pieces), len(pieces[-1].text))
        elif number == 2:
            trainer = _once(trainer, value)
        elif number == 3:
            normalizer = _once(normalizer, value)
        elif number == 5 and _message(_bytes(value)).get(2):
            raise ValueError("it changes the text that it decodes")
    trainer, normalizer = trainer or {}, normalizer or {}
    return Vocabulary(
        pieces=tuple(pieces),
        unk=_int(trainer.get(40, 0)),
        bos=_int(trainer.get(41, 1)),
        eos=_int(trainer.get(42, 2)),
        pad=_int(trainer.get(43, -1 & (1 << 64) - 1)),
        model_type=_int(trainer.get(3, 1)),
        byte_fallback=bool(trainer.get(35, 0)),
        charsmap=_bytes(normalizer.get(2, b"")),
        add_dummy_prefix=bool(normalizer.get(3, 1)),
        remove_extra_whitespaces=bool(normalizer.get(4, 1)),
        escape_whitespaces=bool(normalizer.get(5, 1)),
        whitespace_as_suffix=bool(trainer.get(24, 0)),
    )


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _field(number: int, value: int | float | bytes) -> bytes:
    if isinstance(value, bytes):
        return _varint(number << 3 | _BYTES) + _varint(len(value)) + value
    if isinstance(value, float):
        return _varint(number << 3 | _FIXED32) + struct.pack("<f", value)
    return _varint(number << 3 | _VARINT) + _varint(value)


def build_model(vocabulary: Vocabulary) -> bytes:
    """A model file that SentencePiece loads; `parse_model` of it gives `vocabulary` back."""
    v = vocabulary
    pieces = b"".join(
        _field(1, _field(1, piece.text.encode()) + _field(2, float(piece.score)) + _field(3, piece.kind))
        for piece in v.pieces
    )
    special = {45: v.unk, 46: v.bos, 47: v.eos, 48: v.pad}
    trainer: list[tuple[int, int | bytes]] = [
        *((3, v.model_type), (4, len(v.pieces)), (24, v.whitespace_as_suffix), (35, v.byte_fallback)),
        *((40, v.unk), (41, v.bos), (42, v.eos), (43, v.pad)),
        *((number, v.pieces[id].text.encode()) for number, id in special.items() if id >= 0),
    ]
    normalizer: list[tuple[int, int | bytes]] = [
        (1, b"identity" if not v.charsmap else b"user_defined"),
        (2, v.charsmap),
        (3, v.add_dummy_prefix),
        (4, v.remove_extra_whitespaces),
        (5, v.escape_whitespaces),
    ]
    return (
        pieces
        + _field(2, b"".join(_field(number, value) for number, value in trainer))
        + _field(3, b"".join(_field(number, value) for number, value in normalizer))
    )
