"""`inspect_data` counts what is there and collects every error; `paint` and `picture` colour by mask or by value."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from ayni.errors import BadInput
from ayni.files import write_jsonl
from ayni.formats.inspect import inspect_data
from ayni.formats.painting import paint, picture
from ayni.records import Message, TokenSequence
from ayni.text.chat import render
from ayni.text.tokenizer import Tokenizer, train_tokenizer

KEYS = {"path", "format", "records", "turns", "errors", "tokens", "unsupervised", "without_eos", "truncated"}


@pytest.fixture(scope="module")
def small() -> Tokenizer:
    return train_tokenizer(["the river is wide and the hill is high"] * 3, 290)


def chat(*contents: str) -> dict[str, object]:
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[n % 2], "content": text} for n, text in enumerate(contents)]}


def test_counts(small: Tokenizer, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "data.jsonl", [chat("a", "b"), chat("a", "b", "c", "the river")])
    report = inspect_data(tmp_path / "data.jsonl", small)
    sequences = [
        render(tuple(Message(role, text) for role, text in turns), small)
        for turns in (
            [("user", "a"), ("assistant", "b")],
            [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "the river")],
        )
    ]
    assert set(report) == KEYS | {"skipped"}
    assert (report["format"], report["records"], report["turns"], report["errors"]) == ("messages", 2, 3, [])
    assert report["tokens"] == {
        "total": sum(len(s.tokens) for s in sequences),
        "supervised": sum(sum(s.mask) for s in sequences),
        "max": len(sequences[1].tokens),
    }
    assert (report["unsupervised"], report["without_eos"], report["truncated"]) == (0, 0, None)


def test_truncation_is_audited(small: Tokenizer, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "data.jsonl", [chat("a", "b"), chat("a", "b" * 40), chat("a" * 40, "b")])
    short = len(render((Message("user", "a"), Message("assistant", "b")), small).tokens)
    report = inspect_data(tmp_path / "data.jsonl", small, max_tokens=short)
    # the long answer loses its EOS; the long question loses its whole answer
    assert (report["truncated"], report["without_eos"], report["unsupervised"]) == (2, 1, 1)


def test_every_error_is_collected(small: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    write_jsonl(path, [chat("a"), chat("a", "b"), {"messages": []}])
    path.write_text(path.read_text() + "{broken\n[1]\n" + '{"messages": 1, "messages": 2}\n')
    report = inspect_data(path, small)
    assert report["records"] == 1
    assert [(error["line"], error["field"]) for error in report["errors"]] == [
        *((1, "messages.0.role"), (3, "messages"), (4, None), (5, None), (6, None)),
    ]
    assert all(error["message"] and "\n" not in error["message"] for error in report["errors"])


def test_without_a_tokenizer_there_are_no_token_counts(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "data.jsonl", [{"text": "a"}])
    report = inspect_data(tmp_path / "data.jsonl")
    assert (report["records"], report["turns"], report["tokens"]) == (1, 0, None)


def test_comparisons_prompts_and_texts(small: Tokenizer, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "pairs.jsonl", [{"prompt": "a", "chosen": "b", "rejected": "c"}])
    write_jsonl(tmp_path / "prompts.jsonl", [{"prompt": "a"}])
    (tmp_path / "book.txt").write_text("the river")
    pairs, prompts, texts = (
        inspect_data(tmp_path / name, small) for name in ("pairs.jsonl", "prompts.jsonl", "book.txt")
    )
    assert pairs["tokens"]["total"] == 2 * pairs["tokens"]["max"]
    assert (prompts["unsupervised"], prompts["tokens"]["supervised"]) == (1, 0)
    assert texts["tokens"]["supervised"] == texts["tokens"]["total"] - 1


def test_a_missing_file_raises(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such file"):
        inspect_data(tmp_path / "data.jsonl")


def styles(text: object) -> list[str]:
    return [str(span.style) for span in text.spans]  # type: ignore[attr-defined]


def test_paint(small: Tokenizer) -> None:
    sequence = render((Message("user", "a"), Message("assistant", "the\nriver\x1b[0m")), small)
    text = paint(sequence, small)
    assert text.plain.startswith("<s> [INST] a [/INST] the⏎\nriver")
    assert "\x1b" not in text.plain
    assert styles(text)[0] == "dim reverse"
    assert styles(text)[-1] == "green reverse"
    assert sum(style.startswith("green") for style in styles(text)) == sum(sequence.mask)


def test_paint_values(small: Tokenizer) -> None:
    sequence = TokenSequence([small.bos, 260, 261], [False, True, True])
    assert styles(paint(sequence, small, [0.0, -1.0, 1.0]))[1:] == [
        "rgb(0,0,0) on rgb(240,150,60)",
        "rgb(0,0,0) on rgb(100,165,235)",
    ]
    assert styles(paint(sequence, small, [2.0, 2.0, 2.0]))[1:] == ["rgb(0,0,0) on rgb(242,242,242)"] * 2
    with pytest.raises(ValueError, match="2 values for 3 tokens"):
        paint(sequence, small, [0.0, 1.0])


SVG = "{http://www.w3.org/2000/svg}"


def test_picture() -> None:
    rows = [[("<s>", None), ("▁首都", 0.5), ("南", -1.0), ("京", 2.0)], [("no", 0.5)]]
    found = ElementTree.fromstring(picture(rows, "a < b"))
    assert found.findtext(f"{SVG}title") == "a < b"
    assert found.findtext(f"{SVG}desc", "").endswith(" 首都 0.50 南 -1.00 京 2.00; no 0.50")
    boxes = [box.get("fill") for box in found.findall(f"{SVG}rect") if box.get("class") is None]
    assert boxes == ["rgb(242,242,242)", "rgb(240,150,60)", "rgb(100,165,235)", "rgb(242,242,242)"]
    assert [t.text for t in found.findall(f"{SVG}text[@class='c']")] == ["<s>"]
    assert [t.text for t in found.findall(f"{SVG}text[@class='t']")] == [" 首都", "南", "京", "no"]
    assert [t.text for t in found.findall(f"{SVG}text[@class='n']")] == ["0.50", "-1.00", "2.00", "0.50"]
    heights = [float(box.get("y", 0)) for box in found.findall(f"{SVG}rect") if box.get("class") is None]
    assert heights[0] == heights[1] == heights[2] < heights[3]


def test_picture_keeps_within_its_width_and_breaks_where_the_text_does() -> None:
    words, breaks = [("▁word", i / 100) for i in range(100)], [("a", 0.0), ("<0x0A>", 0.0), ("b", 0.0)]
    found = ElementTree.fromstring(picture([words, breaks], ""))
    _, _, width, height = map(float, found.get("viewBox", "").split())
    boxes = [box for box in found.findall(f"{SVG}rect") if box.get("class") is None]
    places = [(float(b.get("x", 0)), float(b.get("y", 0)), float(b.get("width", 0))) for b in boxes]
    assert len(set(places)) == 103
    assert all(x + w <= width and y + 52 < height for x, y, w in places)
    *_, before, end, after = places
    assert before[1] == end[1] < after[1]


def test_no_piece_is_markup_in_a_picture() -> None:
    hostile = ["</text><script>alert(1)</script>", "\x00\x1b\ufffe\ud800\u202e", "&amp;", '"', "]]>", "{low}", "<0x0A>"]
    rows = [[(piece, float(i)) for i, piece in enumerate(hostile)], [(piece, None) for piece in hostile]]
    drawn = picture(rows, hostile[0])
    found = ElementTree.fromstring(drawn.encode())
    kinds = ("svg", "title", "desc", "style", "rect", "text")
    assert {element.tag for element in found.iter()} == {f"{SVG}{kind}" for kind in kinds}
    assert found.findtext(f"{SVG}text[@class='t']") == found.findtext(f"{SVG}title") == hostile[0]
    assert not {c for c in drawn if not c.isprintable()} - {"\n"}
    assert "http" not in drawn.replace("http://www.w3.org/2000/svg", "")


def test_a_picture_of_nothing_is_one() -> None:
    assert ElementTree.fromstring(picture([], "")).tag == f"{SVG}svg"
