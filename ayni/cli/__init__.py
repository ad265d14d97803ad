"""The command line: `ayni VERB`. Results go to stdout, everything else to stderr; every failure is one line.

Exit codes: 0 done, 2 bad input or config, 3 not enough disk or memory, 4 numbers went bad, 130 and 143 interrupted;
1 where one of several processes has ended unasked.
Torch and the stages are imported by the verb that needs them, never for `--help`.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from ayni.errors import AyniError
from ayni.files import disk_full
from ayni.interruption import Interrupted, signals

CONTINUES = "interrupted; the same command continues"
NO_STAGE = {
    "annotate",
    "chat",
    "generate",
    "score",
    "encode",
    "inspect",
    "report",
    "compare",
    "doctor",
    "lineage",
    "import",
    "export",
}


@dataclass(frozen=True)
class VerbFailure:
    """A verb that failed but has something to show: `value` for --json, `error` for the one line and exit code."""

    value: dict[str, Any]
    error: AyniError


def plain(text: str, kept: str = "") -> str:
    """The text without what could drive a terminal or turn what follows around; of that, what is `kept` stays."""
    return "".join(c if c.isprintable() or c in kept else "\N{REPLACEMENT CHARACTER}" for c in text)


def say(text: str) -> None:
    """One line on stderr; what a file or a server put into it cannot drive the terminal."""
    fresh = "\r\x1b[K" if sys.stderr.isatty() else ""  # in place of a progress line that was cut off
    print(fresh + plain(" ".join(text.split())), file=sys.stderr, flush=True)


def show(text: str, *, end: str = "\n", file: TextIO | None = None) -> None:
    """What a model or a file says, on stdout: harmless to a terminal, and to a program that reads it as it is."""
    out = file or sys.stdout
    out.write((plain(text, "\n\t") if out.isatty() else text) + end)


def program() -> str:
    """How this command was called, to be called again: `ayni`, a path to it, or `python -m ayni`."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return f"{shlex.quote(sys.executable)} -m ayni"
    found = shutil.which(called.name)
    if found is not None and Path(found).resolve() == called.resolve():
        return called.name
    return shlex.quote(str(called))


def _no_memory(error: BaseException) -> bool:
    """Out of memory by Python, by torch's CPU allocator (a RuntimeError) or on an accelerator."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error))
    )


def _peer_lost(error: BaseException) -> bool:
    """Another process of the command has ended; gloo's and nccl's errors have no type of their own."""
    return isinstance(error, RuntimeError) and any(
        f"Connection {how} by peer" in str(error) for how in ("closed", "reset")
    )


def failure(error: Exception) -> tuple[int, str] | None:
    """The exit code and the line of an error that is no bug of ours; None of one that is."""
    if isinstance(error, AyniError):
        return error.exit_code, str(error)
    if (full := disk_full(error)) is not None:
        return 3, f"{getattr(error, 'filename', None) or 'disk'}: {full}; free some and run the same command again"
    if isinstance(error, OSError) and error.errno is not None:
        # of a file that was open already nobody says the name
        return 2, f"{error.filename or 'disk'}: {error.strerror}"
    if _peer_lost(error):
        return 1, "another process of this command has ended; the same command continues"
    if _no_memory(error):
        return 3, "not enough memory; lower tokens_per_micro_batch or choose a smaller model"
    return None


def run(argv: Sequence[str]) -> int:
    """One command; returns its exit code. Only what is no user's fault ends in a traceback."""
    from typer import Abort, TyperException

    from ayni.cli.app import app_for

    rank = int(os.environ.get("RANK", "0"))  # of torchrun's processes, only the first one answers
    as_json, stdout = "--json" in argv, sys.stdout if rank == 0 else open(os.devnull, "w")  # noqa: SIM115
    value: Any = None
    code, line = 0, None
    try:
        with signals(), contextlib.redirect_stdout(sys.stderr if as_json else stdout):
            value = app_for(argv)(args=list(argv) or ["--help"], prog_name="ayni", standalone_mode=False)
        if isinstance(value, VerbFailure):
            code, line, value = value.error.exit_code, str(value.error), value.value
        elif isinstance(value, int):
            code, value = value, None
    except TyperException as error:
        verb = f" {argv[0]}" if argv and argv[0].isalpha() and "No such command" not in str(error) else ""
        code, line = 2, f"{error.format_message().rstrip('.')}; see ayni{verb} --help"
    except (Interrupted, Abort) as error:
        code = error.exit_code if isinstance(error, Interrupted) else 130
        line = "interrupted" if argv and argv[0] in NO_STAGE else CONTINUES
    except BrokenPipeError:
        return _broken_pipe()
    except SystemExit as error:  # typer's answer to a broken pipe
        if isinstance(error.__context__, BrokenPipeError):
            return _broken_pipe()
        raise
    except Exception as error:
        if (told := failure(error)) is None:
            raise
        code, line = told
    try:
        if as_json and (value is not None or line is not None):
            whole = (value or {}) | ({} if line is None else {"error": line, "exit_code": code})
            show(json.dumps(whole, ensure_ascii=False), file=stdout)
        stdout.flush()
    except BrokenPipeError:
        return _broken_pipe()
    if line is not None and rank == 0:
        say(line)
    elif line and code not in (1, 2, 130, 143):  # the first process says these
        say(f"process {rank}: {line}")
    return code


def _broken_pipe() -> int:
    """The reader has seen enough (`| head`): be quiet, also when Python flushes at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 128 + signal.SIGPIPE


def main() -> None:
    from ayni.cli.environment import prepare

    prepare()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # of a file's name that is no text
    try:
        code = run(sys.argv[1:])
    except KeyboardInterrupt:  # before or after the verb itself
        say("interrupted")
        code = 130
    if "ayni.parallel" in sys.modules:  # imported to its end: torch is whole
        from ayni.parallel import leave

        leave(code)
    sys.exit(code)
