"""Sound files, broken in every way that bytes and structures can be: what reads them must take them or say one line.

Run as a program (`python tests/mutations.py FAMILY`) it reads AYNI_MUTATIONS of each format of a family, in a process
of its own with a limit on its memory, because what it looks for may hang, end the process, or fill the machine. It
prints one JSON list of what broke the promise: sound or BadInput, one line, nothing written or printed, bounded.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import random
import resource
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

MUTATIONS = int(os.environ.get("AYNI_MUTATIONS", "60"))
SECONDS, MEMORY = 5, 1 << 30
Draw = random.Random
# What has meaning somewhere: in JSON, YAML, CSV, protobuf, HTTP, a tokenizer, a terminal, or in arithmetic.
WORDS = [
    b"\0", b"\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\\ud800", b"\x1b[2J", b"\r", b"\n", b"\t", b" ", b'"', b"'",
    b"\\",
    b",", b":", b";", b"{", b"}", b"[", b"]", b"- ", b"&a ", b"*a", b"<<: ", b"!!bool ", b"!!python/object:os.system ",
    b"? ", b"| ", b"> ", b"%", b"#", b"---\n", b"null", b"true", b"NaN", b"Infinity", b"-1", b"1e999", b"1e-999",
    b"9" * 25, b"9" * 5000, b"\xff\xff\xff\xff\x7f", b"\xff" * 10, b"\x00\x00\x00\x80", b"[" * 2000, b'{"a":' * 2000,
    b"a" * 70000,
    b"[INST]", b"</s>", b"<0x00>", "▁".encode(), "\u202e".encode(), "😀".encode(), b"\n\nHuman:", b"\n\nAssistant:",
]  # fmt: skip
VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 2, 3, 17, 2**15, 2**31, -(2**31), 2**40, 10**18, 2**63, -(2**64), 10**400, 0.5, -0.0,
    1e308, 5e-324, float("inf"), float("nan"), "", " ", "a", "1", "16", "nan", "\ud800", "\0", "\x1b[2J", "../..",
    "/etc/passwd", "[INST]", "</s>", "up", "left", "tie", "a" * 70000, [], {}, [[]], [None], [1, "a"], [10**9] * 9,
    {"a": 1}, {"": None}, ["a"] * 300, [[["a"]]], {str(n): n for n in range(1200)},
    [{"role": "user", "content": "a"}] * 3,
]  # fmt: skip


class Format(NamedTuple):
    """A sound file's bytes, its name, what reads it from its path; and its value, where it is JSON or YAML."""

    data: bytes
    file: str
    read: Callable[[Path], object]
    value: Any = None
    write: Callable[[Any], bytes] = lambda value: json.dumps(value).encode()


def broken_bytes(data: bytes, draw: Draw) -> bytes:
    """Some places flipped, cut out, doubled, moved, cut off, or overwritten with what has a meaning."""
    for _ in range(draw.choice([1, 1, 1, 2, 3, 8])):
        at, length = draw.randrange(len(data) + 1), int(draw.expovariate(0.1))
        inside = data[at : at + length]
        other = draw.randrange(len(data) + 1)
        data = draw.choice(
            [
                data[:at] + bytes([draw.randrange(256)]) + data[at + 1 :],
                data[:at] + data[at + length :],
                data[:at] + inside * draw.choice([2, 3, 50]) + data[at + length :],
                data[:other] + inside + data[other:],
                data[:at],
                data[:at] + draw.choice(WORDS) + data[at:],
                data[:at] + draw.choice(WORDS) + data[at + length :],
            ]
        )
    return data


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value inside."""
    for key, child in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*at, key)
        yield from places(child, (*at, key))


def broken_value(value: Any, draw: Draw) -> Any:
    """Some parts replaced, left out, doubled, wrapped, renamed, or put in each other's place."""
    value = copy.deepcopy(value)
    for _ in range(draw.choice([1, 1, 2, 3])):
        if not (ways := list(places(value))):
            return draw.choice(VALUES)
        *before, key = draw.choice(ways)
        parent = value
        for step in before:
            parent = parent[step]
        what = draw.randrange(7)
        if what == 0:
            del parent[key]
        elif what == 1 and isinstance(parent, list):
            parent.insert(key, copy.deepcopy(parent[key]))
        elif what == 1 or what == 2:
            parent[key] = draw.choice([[parent[key]], {"a": parent[key]}, str(parent[key])])
        elif what == 3 and isinstance(parent, dict):
            parent[draw.choice(["", "a", f"{key} ", f"{key}s", "\x1b[2J", "id", "messages", "chosen"])] = parent.pop(
                key
            )
        elif what == 4:
            other: Any = value
            for step in draw.choice(ways):
                with contextlib.suppress(KeyError, IndexError, TypeError):
                    other = other[step]
            parent[key] = copy.deepcopy(other)
        else:
            parent[key] = copy.deepcopy(draw.choice(VALUES))
    return value


def mutants(name: str, format: Format, count: int) -> Iterator[bytes]:
    """So many, always the same ones: half of them of the bytes, half of the structure where there is one."""
    draw = Draw(name)
    for number in range(count):
        if number % 2 and format.value is not None:
            with contextlib.suppress(ValueError, OverflowError):  # what cannot be written breaks nobody
                yield format.write(broken_value(format.value, draw))
        else:
            yield broken_bytes(format.data, draw)


class Slow(BaseException):
    """The time was up."""


def _slow(number: int, frame: object) -> None:
    raise Slow


def kept(folder: Path, format: Format, data: bytes) -> str | None:
    """How reading `data` broke the promise; None where it was kept."""
    from ayni.errors import BadInput

    path = folder / format.file
    path.write_bytes(data)
    before = sorted(folder.iterdir())
    # its own time: the machine may be busy; and who waits for ever uses none
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.alarm(20 * SECONDS)
    try:
        format.read(path)
    except BadInput as error:
        if "\n" in str(error) or len(str(error)) > 3000:
            return f"not one line: {str(error)[:200]!r}"
    except Slow:
        return f"over {SECONDS} seconds"
    except BaseException:
        return traceback.format_exc()[-1500:]
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
    return "wrote something" if sorted(folder.iterdir()) != before else None


def torment(formats: dict[str, Format], count: int) -> list[dict[str, str]]:
    """What broke the promise, at most three of a format."""
    for number in (signal.SIGALRM, signal.SIGPROF):
        signal.signal(number, _slow)
    found = []
    with tempfile.TemporaryDirectory() as place:
        last = Path(os.environ.get("AYNI_LAST_MUTANT", os.devnull))  # what was read when the process ended
        for name, format in formats.items():
            folder = Path(place) / "deep" / "inside" / name.replace(" ", "-")  # what names ../.. finds nothing large
            folder.mkdir(parents=True)
            (folder / format.file).write_bytes(format.data)
            format.read(folder / format.file)  # sound, or all that follows proves little
            wrong = 0
            for data in mutants(name, format, count):
                last.write_bytes(data)
                if (how := kept(folder, format, data)) is not None:
                    found.append({"format": name, "data": repr(data[:3000]), "how": how})
                    wrong += 1
                if wrong == 3:
                    break
    return found


def main(family: str) -> None:
    from mutated_formats import FAMILIES

    formats = FAMILIES[family]()
    held = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, resource.RLIM_INFINITY))
    print(json.dumps(torment(formats, MUTATIONS)))


if __name__ == "__main__":
    main(sys.argv[1])
