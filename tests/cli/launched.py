"""Jobs of `ttpu launch`, and what is left of them."""

import contextlib
import os
import pathlib
import random
import socket
import subprocess
import time
import uuid

# A process that SIGTERM does not end, with a child that has left its session and does not end either.
STUBBORN = "trap '' TERM; setsid sh -c \"trap '' TERM; sleep 1000; sleep 1000\" & echo ready; sleep 1000; sleep 1000; sleep 1000"


def free_port() -> int:
    """With the seven after it, below those that the system gives to clients."""
    while True:
        first = random.randrange(10000, 32000)
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in range(first, first + 8):
                stack.enter_context(socket.socket()).bind(("", port))
            return first


class Job:
    """A running `ttpu launch`, whose processes all carry a mark."""

    def __init__(self, command, *arguments, env=None, mark=None, before=("launch",)):
        self.mark = mark or uuid.uuid4().hex
        self.process = subprocess.Popen(
            [command, *before, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "TTPU_TEST_MARK": self.mark, **(env or {})})

    def survivors(self) -> list[str]:
        """The command lines of the processes with the mark."""
        found = []
        for folder in pathlib.Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if self.mark.encode() in (folder / "environ").read_bytes():
                    found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        return found

    def wait_for(self, text) -> str:
        """The next line of standard output that has it."""
        for line in self.process.stdout:
            if text in line:
                return line
        raise AssertionError(f"{text!r} was not printed: {self.process.stderr.read()}")

    def end(self, seconds=60):
        """Status, standard output, standard error; nothing may be left of it."""
        out, err = self.process.communicate(timeout=seconds)
        assert self.survivors() == []
        return self.process.returncode, out, err

    def wait_until_gone(self, seconds=30):
        end = time.monotonic() + seconds
        while left := self.survivors():
            assert time.monotonic() < end, left
            time.sleep(0.02)
