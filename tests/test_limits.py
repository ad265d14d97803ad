"""What is made to hang, to fill the memory or to run for ever is refused in one line, before much of it is read."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ayni import cli, limits
from ayni.errors import BadInput
from ayni.files import read_bytes, read_json, read_jsonl, read_text, sha256_of
from ayni.formats import json_window
from ayni.formats.reading import read_texts, scan
from ayni.limits import absent, size_of
from ayni.runs.kinds import kinds_at
from ayni.runs.recipe import processes_of
from ayni.text.tokenizer import load_tokenizer

READERS: dict[str, Callable[[Path], object]] = {
    **{f"data.{suffix}": scan for suffix in ("json", "jsonl", "csv", "jsonl.gz", "json.gz", "csv.gz")},
    **{f"a.{suffix}": lambda path: list(read_texts(path)) for suffix in ("md", "txt", "txt.gz")},
    **dict.fromkeys(("tokenizer.model", "tok.bin", "tokenizer.json"), load_tokenizer),
    "recipe.yaml": processes_of,
    "lines.jsonl": lambda path: list(read_jsonl(path)),
    "config.json": read_json,
    "input": kinds_at,
}


def refused(read: Callable[[Path], object], path: Path) -> str:
    """The one line, for which no more than 200 MB were held."""
    tracemalloc.start()
    try:
        with pytest.raises(BadInput) as caught:
            read(path)
        assert tracemalloc.get_traced_memory()[1] < 200e6
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", READERS)
@pytest.mark.timeout(20)
def test_pipes_and_devices_are_not_opened(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    assert "is a pipe or a device, not a file" in refused(READERS[name], tmp_path / name)
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to("/dev/zero")
    assert "is a pipe or a device, not a file" in refused(READERS[name], tmp_path / name)


@pytest.mark.parametrize("name", READERS)
@pytest.mark.timeout(20)
def test_a_file_of_holes_is_not_read(name: str, tmp_path: Path) -> None:
    with open(tmp_path / name, "wb") as file:
        file.truncate(1 << 40)
    assert "1T bytes are more than the" in refused(READERS[name], tmp_path / name)


ENDLESS = {
    "newlines": b"\n", "spaces": b" ", "zeros": b"\0", "letters": b"a", "rows": b'{"text":"a"}\n',
    "elements": b'[{"text":"a"},',
}  # fmt: skip


@pytest.mark.parametrize("content", ENDLESS)
@pytest.mark.parametrize("name", [name for name in READERS if name.endswith(".gz")])
@pytest.mark.timeout(30)
def test_a_gzip_file_that_unpacks_to_a_thousand_times_its_size(name: str, content: str, tmp_path: Path) -> None:
    part = gzip.compress(ENDLESS[content] * ((1 << 24) // len(ENDLESS[content])), mtime=0)
    (tmp_path / name).write_bytes(part * 512)  # 8 GB out of some MB
    assert "unpacks to more than " in refused(READERS[name], tmp_path / name)


ENDLESS_ROWS: dict[str, Iterator[str]] = {
    "data.jsonl": iter(['{"text": "', "a" * 5000]),
    "lines.jsonl": iter(["a" * 5000]),
    "data.json": iter(['[{"text": "a"}, {"text": "', "a" * 5000]),
    "one.json": iter(['{"text": "', "a" * 5000, '"}']),
    "whole.json": iter(['[{"text": "', "a" * 5000, '"}]']),
    "data.csv": iter(["prompt,label\n", "a" * 5000, ",safe\n"]),
    "rows.csv": iter(["prompt,label\n", '"a\n' + "b\n" * 3000]),
}


@pytest.mark.parametrize("name", ENDLESS_ROWS)
def test_a_row_has_a_longest_length_that_can_be_raised(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(limits.LINE, "1K")
    (tmp_path / name).write_text("".join(ENDLESS_ROWS[name]))
    read: Callable[[Path], object] = scan if name != "lines.jsonl" else lambda path: list(read_jsonl(path))
    said = refused(read, tmp_path / name)
    assert "longer than the 1K characters of one row; split it, or raise AYNI_LINE_LIMIT" in said
    monkeypatch.setenv(limits.LINE, "8K")
    with contextlib.suppress(BadInput):
        read(tmp_path / name)
        return
    with pytest.raises(BadInput) as error:  # something else is wrong with it
        read(tmp_path / name)
    assert "longer" not in str(error.value)


def test_a_file_has_a_largest_size_that_can_be_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text("a" * 5000)
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(os.urandom(2000) + b"a" * (70 << 20)))
    monkeypatch.setenv(limits.FILE, "4k")
    for read in (read_text, read_bytes):
        assert "4.883K bytes are more than the 4K of one file; split it, or raise AYNI_FILE_LIMIT" in refused(
            read, tmp_path / "a.txt"
        )
    monkeypatch.setenv(limits.FILE, "")
    assert read_bytes(tmp_path / "a.txt") == b"a" * 5000
    assert "unpacks to more than 64M bytes" in refused(read_bytes, tmp_path / "b.txt.gz")
    monkeypatch.setenv(limits.FILE, "1G")
    assert len(read_bytes(tmp_path / "b.txt.gz")) == (70 << 20) + 2000
    for wrong in ("0", "-1", "1.5G", "much", "9" * 30, "1KB"):
        monkeypatch.setenv(limits.FILE, wrong)
        said = refused(read_bytes, tmp_path / "a.txt")
        assert said == "the environment variable AYNI_FILE_LIMIT is not a size; write for example AYNI_FILE_LIMIT=256M"


def test_bad_letters_are_found_across_blocks(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\n" * ((1 << 20) - 2) + "é".encode() + "✓".encode()[:2] + b"\nx")
    assert f"{path}:{(1 << 20) - 1}: byte 0xe2 is not UTF-8" in refused(read_text, path)
    path.write_bytes("aé".encode()[:-1])
    assert f"{path}:1: byte 0xc3 is not UTF-8" in refused(read_text, path)


class Counted(json.JSONDecoder):
    """How many characters are gone through, and the most that are held."""

    parsed = held = 0

    def raw_decode(self, text: str, at: int = 0) -> Any:
        Counted.held = max(Counted.held, len(text))
        try:
            value, end = super().raw_decode(text, at)
        except json.JSONDecodeError as error:
            Counted.parsed += error.pos - at if error.pos >= at else len(text) - at
            raise
        Counted.parsed += end - at
        return value, end


def arrays() -> Iterator[tuple[str, str]]:
    small = [{"text": f"{n} {'a' * (n % 50)}"} for n in range(4000)]
    mixed = [{"text": "b" * 2 ** (n % 15)} for n in range(200)]
    nested = [{"text": "c", "more": {"deep": [[{"x": n}] * 5] * 5}} for n in range(300)]
    for name, values in (("small", small), ("mixed", mixed), ("nested", nested)):
        yield name, json.dumps(values)
        yield f"{name}, indented", json.dumps(values, indent=4)
        yield f"{name}, apart", json.dumps(values).replace(", {", "," + " " * 300 + "{")
        yield f"{name}, one a line", "[\n" + ",\n".join(map(json.dumps, values)) + "\n]\n"


ARRAYS = dict(arrays())


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_is_gone_through_once(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted, not timed: each character is parsed a few times at most, and a few blocks are held."""
    monkeypatch.setattr(json_window, "BLOCK", 4096)
    monkeypatch.setattr(json_window, "ROWS", Counted())
    monkeypatch.setattr(Counted, "parsed", 0)
    monkeypatch.setattr(Counted, "held", 0)
    text = ARRAYS[name]
    (tmp_path / "a.json").write_text(text)
    count = len(scan(tmp_path / "a.json").records)
    assert count == len(json.loads(text))
    longest = max(len(json.dumps(value, indent=4)) for value in json.loads(text))
    assert Counted.parsed <= 4 * len(text)
    assert Counted.held <= 5 * max(4096, 2 * longest)


def test_a_quote_that_is_missing_does_not_read_the_whole_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(limits.LINE, "100K")
    (tmp_path / "a.json").write_text('[{"text": "a},' + '{"text": 1},' * 200_000 + "]")
    monkeypatch.setattr(json_window, "ROWS", Counted())
    monkeypatch.setattr(Counted, "held", 0)
    assert "a.json:1: " in refused(scan, tmp_path / "a.json")
    assert Counted.held < 2 << 20


WIDE = {
    "keys": json.dumps({str(n): n for n in range(2000)}),
    "keys inside": json.dumps({"data": {str(n): n for n in range(2000)}, "annotations": []}),
    "digits": '{"text": ' + "9" * 5000 + "}",
    "depth": '{"text": ' + "[" * 3000 + "]" * 3000 + "}",
    "the same key": '{"text": "a", ' + ", ".join(f'"{n}": 1' for n in range(900)) + ', "899": 2}',
}


@pytest.mark.parametrize("how", WIDE)
@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_a_row_that_is_too_wide_or_too_deep(how: str, suffix: str, tmp_path: Path) -> None:
    text = WIDE[how] + "\n" if suffix == "jsonl" else f"[{WIDE[how]}]"
    (tmp_path / f"a.{suffix}").write_text(text)
    assert f"a.{suffix}:1: " in refused(scan, tmp_path / f"a.{suffix}")
    with pytest.raises(BadInput):
        scan(tmp_path / f"a.{suffix}", strict=False)


def test_many_values_in_one_json(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[" + "[]," * (6 << 20) + "[]]")
    assert "holds more than 8388608 values" in refused(read_json, tmp_path / "a.json")


@pytest.mark.timeout(20)
def test_pipes_at_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "a.jsonl")
    os.mkfifo(tmp_path / "r.yaml")
    for argv in (
        ["inspect", str(tmp_path / "a.jsonl")],
        ["tokenizer", "--data", str(tmp_path / "a.jsonl"), "--out", str(tmp_path / "o"), "--quiet"],
        ["run", str(tmp_path / "r.yaml")],
    ):
        assert cli.run(argv) == 2
        assert "is a pipe or a device" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "r.yaml"]
    assert len(sha256_of(Path(__file__))) == 64


def test_a_file_that_is_not_there_may_have_been_meant_otherwise(tmp_path: Path) -> None:
    (tmp_path / "demonstrations.jsonl").write_text("{}\n")
    with pytest.raises(BadInput, match=r"demonstration.jsonl: no such file; did you mean .*/demonstrations.jsonl\?$"):
        size_of(tmp_path / "demonstration.jsonl")
    for name in ("recipe.yaml", "no/demonstrations.jsonl", "x" * 300):
        with pytest.raises(BadInput) as found:
            size_of(tmp_path / name)
        assert "did you mean" not in str(found.value)
    assert str(absent(Path("\0"))) == "\0: no such file or directory"
