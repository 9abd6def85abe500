"""A box at work: a process in it, and lines of JSON that are read within bounds and within a time."""

import contextlib
import os
import select
import signal
import subprocess
import time
from typing import Any

from dts_mini.core.errors import DTSError
from dts_mini.course import sandbox, wire

START = 120  # seconds: importing torch on a cold disk


class Lost(BaseException):
    """A box gave no answer that can be used; no Exception, so that no check takes it for one."""


class Box:
    """A box with nothing in it yet. Started without waiting; Lost when it ends, hangs or makes no sense.

    The thread that starts a box has to outlive it: bubblewrap ends it with its parent.
    """

    def __init__(self, made_by: sandbox.Engine):
        self.engine, self.rest = made_by, b""
        self.process, self.name = made_by.start(sandbox.BOOT)
        self.input, self.output = self.process.stdin.fileno(), self.process.stdout.fileno()
        os.set_blocking(self.input, False)
        self.ready_by = time.monotonic() + START

    def ask(self, message: Any, seconds: float) -> Any:
        """The answer to a message, within a time."""
        deadline = time.monotonic() + seconds
        data = memoryview(wire.line(message))
        while data:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([], [self.input], [], left)[1]:
                raise Lost(f"gave no answer in {seconds:.3g} s")
            try:
                data = data[os.write(self.input, data) :]
            except OSError as error:
                raise Lost(self._end()) from error
        return self._line(deadline, f"gave no answer in {seconds:.3g} s")

    def wait(self) -> None:
        """Until the box is ready; DTSError with what it says when it does not get so far."""
        try:
            self._line(self.ready_by, f"was not ready in {START} s")
        except Lost as lost:
            self.process.kill()
            said = self.process.stderr.read(10_000).decode(errors="replace").strip()
            raise DTSError(f"a box did not start: it {lost}: {said[-500:]}") from lost

    def _line(self, deadline: float, late: str) -> Any:
        parts, size = [self.rest], len(self.rest)  # joined once: a long reply comes in hundreds of pieces
        while b"\n" not in parts[-1]:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.output], [], [], left)[0]:
                raise Lost(late)
            if not (data := os.read(self.output, 2**16)):
                raise Lost(self._end())
            parts.append(data)
            size += len(data)
            if size > wire.LARGEST:
                raise Lost(f"answered more than {wire.LARGEST // 2**20} MiB")
        text, _, self.rest = b"".join(parts).partition(b"\n")
        if self.rest:
            raise Lost("answered more often than it was asked")
        try:
            return wire.parsed(text)
        except (ValueError, RecursionError) as error:
            raise Lost("answered in no known form") from error

    def _end(self) -> str:
        try:
            status = self.process.wait(5)
        except subprocess.TimeoutExpired:
            return "closed its pipe"
        # bwrap ends as its child did, a signal told as a shell tells it
        number = -status if status < 0 else status - 128
        known = {signal.SIGXCPU: "used too much processor time", signal.SIGKILL: "was killed (too much memory or time)"}
        return known.get(number, f"ended the process, status {status}")

    def kill(self) -> None:
        """Ends the box and all that is in it."""
        if self.process.returncode is None:  # else its number may be another's
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def close(self) -> None:
        self.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            pipe.close()
        self.engine.remove(self.name)
