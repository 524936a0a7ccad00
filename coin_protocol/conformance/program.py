"""Ask a program: one JSON document in, one JSON document out.

Once for each case, the document on its standard input and then its end; or, where the program
stays, one document a line. The program is whoever's is tested: it may hang, print without end, die
or start others. It runs in a session of its own, and all of it is killed when it is done with.
"""

from __future__ import annotations

import json
import os
import selectors
import shlex
import signal
import subprocess  # nosec B404
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import IO, Any, Final, Self

from coin_protocol.conformance.judging import NotMet
from coin_protocol.errors import ConfigurationError

MAX_ANSWER_BYTES: Final = 4 << 20
"""The largest opening of the small models has some 100 kB in JSON."""

_CHUNK: Final = 1 << 16
_KEPT_ERRORS: Final = 2_000
_SHOWN: Final = 200
_STARTS: Final = 3
"""How often a program that stays is started again after it died or was given up."""

_GRACE_SECONDS: Final = 1.0
_WANTED: Final = "one JSON object on standard output"


def split_command(text: str) -> list[str]:
    """Return the words of a command, as a shell would read them.

    Raises:
        ConfigurationError: There is none, or a quote is not closed.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        msg = f"cannot read the command {text!r}: {error}"
        raise ConfigurationError(msg) from error
    if not words:
        msg = "the command is empty: name a program"
        raise ConfigurationError(msg)
    return words


class Program:
    """The program that is tested. Use as a context manager."""

    def __init__(self, command: Sequence[str], *, seconds: float, lines: bool) -> None:
        """Name it; it is started when it is first asked.

        Args:
            command: Program and arguments.
            seconds: For one answer.
            lines: Whether it stays, and answers one line for each that it is given.
        """
        self._command = list(command)
        self._seconds = seconds
        self._lines = lines
        self._running: _Running | None = None
        self._starts = 0

    def __enter__(self) -> Self:
        """Return the program."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it; one that stays is let go by the end of its input."""
        if self._running is not None:
            self._running.close(gently=True)

    def ask(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """Return the program's answer to a document.

        Raises:
            NotMet: It gave none: it hung, ended otherwise than with 0, printed too much, or
                something that is no JSON object.
            ConfigurationError: It cannot be started.
        """
        line = json.dumps(document, ensure_ascii=True).encode() + b"\n"
        return _parsed(self._ask_line(line) if self._lines else self._ask_once(line))

    def _ask_once(self, document: bytes) -> bytes:
        running = _Running(self._command)
        try:
            return running.to_its_end(document, self._seconds)
        finally:
            running.close()

    def _ask_line(self, document: bytes) -> bytes:
        if self._running is None:
            if self._starts > _STARTS:
                raise NotMet(
                    wanted=_WANTED,
                    came=f"the program was started {self._starts} times and did not stay",
                    advice="Answer one line for each line, flush it, and read on.",
                )
            self._starts += 1
            self._running = _Running(self._command)
        try:
            return self._running.line(document, self._seconds)
        except NotMet:
            # What it would say next may belong to this document.
            self._drop()
            raise

    def _drop(self) -> None:
        if self._running is not None:
            self._running.close()
            self._running = None


class _Running:
    """One process and its three pipes, none of which may block this one."""

    def __init__(self, command: Sequence[str]) -> None:
        try:
            # Without a shell; which program that is the caller says.
            self._process = subprocess.Popen(  # noqa: S603  # nosec B603
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            msg = f"cannot start {command[0]!r}: {why}; --command takes a program and its arguments"
            raise ConfigurationError(msg) from error
        self._stdin, self._stdout, self._stderr = map(_there, _pipes(self._process))
        self._out = b""
        self._err = b""
        self._selector = selectors.DefaultSelector()
        for pipe in (self._stdin, self._stdout, self._stderr):
            os.set_blocking(pipe.fileno(), False)
        for pipe in (self._stdout, self._stderr):
            self._selector.register(pipe, selectors.EVENT_READ)

    def to_its_end(self, document: bytes, seconds: float) -> bytes:
        """Give a document and the end of input; return all that it prints until it ends."""
        end = time.monotonic() + seconds
        self._exchange(document, seconds, until_line=False)
        try:
            code = self._process.wait(max(end - time.monotonic(), 0.0))
        except subprocess.TimeoutExpired:
            raise self._late(seconds) from None
        if code != 0:
            raise self._died(code)
        return self._out

    def line(self, document: bytes, seconds: float) -> bytes:
        """Give a line; return the next that it prints."""
        self._exchange(document, seconds, until_line=True)
        line, _, self._out = self._out.partition(b"\n")
        return line

    def close(self, *, gently: bool = False) -> None:
        """Kill it, and all that it started.

        Args:
            gently: Whether it may first end by itself.
        """
        with suppress(OSError):
            self._stdin.close()
        if gently:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_GRACE_SECONDS)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._selector.close()
        self._stdout.close()
        self._stderr.close()

    def _exchange(self, document: bytes, seconds: float, *, until_line: bool) -> None:
        """Write a document, and read until a line, or both outputs, are complete."""
        end = time.monotonic() + seconds
        left = memoryview(document)
        if self._out:
            raise NotMet(
                wanted="one line of output for one line of input",
                came=f"more: {self._out[:_SHOWN].decode(errors='replace').strip()!r}",
            )
        self._selector.register(self._stdin, selectors.EVENT_WRITE)
        reads = self._selector.get_map()
        while reads:
            if until_line and (self._stdout not in reads or (b"\n" in self._out and not left)):
                break
            ready = self._selector.select(max(end - time.monotonic(), 0.0))
            if time.monotonic() >= end:
                raise self._late(seconds)
            for key, _ in ready:
                if key.fileobj is self._stdin:
                    left = self._write(left, close=not until_line)
                else:
                    self._read(key.fd, out=key.fileobj is self._stdout)
        if until_line and b"\n" not in self._out:
            raise self._ended()

    def _write(self, left: memoryview, *, close: bool) -> memoryview:
        """Write what fits; return what is left."""
        try:
            left = left[os.write(self._stdin.fileno(), left[:_CHUNK]) :]
        except BlockingIOError:
            return left
        except OSError:
            # It ended, or does not want to hear all of it: what it says decides.
            left = left[:0]
        if not left:
            self._selector.unregister(self._stdin)
            if close:
                with suppress(OSError):
                    self._stdin.close()
        return left

    def _read(self, descriptor: int, *, out: bool) -> None:
        try:
            chunk = os.read(descriptor, _CHUNK)
        except BlockingIOError:
            return
        if not chunk:
            self._selector.unregister(descriptor)
        elif not out:
            self._err = (self._err + chunk)[-_KEPT_ERRORS:]
        else:
            self._out += chunk
            if len(self._out) > MAX_ANSWER_BYTES:
                raise NotMet(
                    wanted=_WANTED,
                    came=f"more than {MAX_ANSWER_BYTES} bytes",
                    advice="Print the answer and nothing else; logs belong on standard error.",
                )

    def _late(self, seconds: float) -> NotMet:
        return NotMet(
            wanted=_WANTED,
            came=f"nothing within {seconds:g} s{self._said()}",
            advice="See where the program waits; --timeout gives it longer.",
        )

    def _ended(self) -> NotMet:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_GRACE_SECONDS)
        return self._died(self._process.returncode)

    def _died(self, code: int | None) -> NotMet:
        ended = "it closed its output" if code is None else f"the program ended with {code}"
        return NotMet(
            wanted=_WANTED,
            came=f"{ended}{self._said()}",
            advice="An answer is printed and the program ends with 0, whatever the answer says.",
        )

    def _said(self) -> str:
        lines = self._err.decode(errors="replace").strip().splitlines()
        return f"; its last words: {lines[-1][:300]}" if lines else ""


def _pipes(process: subprocess.Popen[bytes]) -> tuple[IO[bytes] | None, ...]:
    return process.stdin, process.stdout, process.stderr


def _there(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        msg = "a process was started without its pipes"
        raise ConfigurationError(msg)
    return pipe


def _parsed(raw: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(raw)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        shown = raw[:_SHOWN].decode(errors="replace").strip()
        raise NotMet(
            wanted=_WANTED,
            came=f"{shown!r}" if shown else "nothing",
            advice="Print the answer and nothing else; logs belong on standard error.",
        )
    return answer
