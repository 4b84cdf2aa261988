"""Runs one process at a time and says how busy the rest of the machine was meanwhile."""

import os
import resource
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


class BenchmarkError(Exception):
    """What went wrong, with the next step in it."""


@dataclass
class CpuTimes:
    """Seconds of all cores since boot, and those that this process and its ended children used."""

    busy: float
    stolen: float
    ours: float

    @classmethod
    def now(cls) -> "CpuTimes":
        fields = [int(value) / TICKS for value in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
        user, nice, system, _idle, _iowait, irq, softirq, steal = fields[:8]
        usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        ours = sum(usage.ru_utime + usage.ru_stime for usage in usages)
        return cls(user + nice + system + irq + softirq, steal, ours)


@dataclass
class Load:
    """How much of the machine others used during a measurement, in cores."""

    others: float = 0.0
    stolen: float = 0.0
    seconds: float = 0.0

    def quiet(self, limit: float) -> bool:
        return self.others + self.stolen <= limit


@contextmanager
def metered():
    """Yields a Load that is filled in when the block ends; its processes must have ended by then."""
    load = Load()
    before, start = CpuTimes.now(), time.monotonic()
    yield load
    after, load.seconds = CpuTimes.now(), time.monotonic() - start
    load.others = max(0.0, (after.busy - before.busy) - (after.ours - before.ours)) / load.seconds
    load.stolen = (after.stolen - before.stolen) / load.seconds


def wait_until_quiet(limit: float, timeout: float) -> bool:
    """Waits until others use less than `limit` cores for a second; false when `timeout` seconds have passed."""
    end = time.monotonic() + timeout
    while True:
        with metered() as load:
            time.sleep(1.0)
        if load.quiet(limit):
            return True
        if time.monotonic() > end:
            return False


@dataclass
class Child:
    """A process that has ended: all that it printed, and the most memory it had resident."""

    started: float  # time.monotonic() just before it was started
    first_output: float | None = None
    stdout: bytes = b""
    stderr: str = ""
    peak_rss_bytes: int = 0


@dataclass
class Running:
    process: subprocess.Popen
    child: Child = field(default_factory=lambda: Child(0.0))


@contextmanager
def process(command: list, *, stdin: str = "", environment: dict | None = None, stop_signal: int | None = None):
    """A running process. When the block ends it is asked to stop by `stop_signal` or waited for, and `child` filled in.

    A failure is a BenchmarkError with the end of what the process printed to standard error.
    """
    words = [str(word) for word in command]
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as stderr:
        given.write(stdin.encode())
        given.seek(0)
        started = time.monotonic()
        popen = subprocess.Popen(words, stdin=given, stdout=subprocess.PIPE, stderr=stderr,
                                 env={**os.environ, **(environment or {})}, start_new_session=True)
        running = Running(popen, Child(started))
        try:
            yield running
            if stop_signal is not None:
                popen.send_signal(stop_signal)
        except BaseException:
            os.killpg(popen.pid, signal.SIGKILL)
            os.wait4(popen.pid, 0)
            popen.returncode = -signal.SIGKILL
            raise
        _, status, usage = os.wait4(popen.pid, 0)
        popen.returncode = os.waitstatus_to_exitcode(status)
        popen.stdout.close()
        stderr.seek(0)
        running.child.stderr = stderr.read().decode(errors="replace")
        running.child.peak_rss_bytes = usage.ru_maxrss * 1024
        if popen.returncode != 0 and stop_signal is None:
            lines = [line for line in running.child.stderr.splitlines() if line.strip()] or ["it said nothing"]
            raise BenchmarkError(f"{lines[-1]}\n(exit status {popen.returncode}: {' '.join(words)})\n" + "\n".join(lines[-12:-1]))


def run(command: list, *, timeout: float = 600.0, stdin: str = "", environment: dict | None = None) -> Child:
    """Runs a command to its end, noting when its first byte of output came."""
    with process(command, stdin=stdin, environment=environment) as running:
        out, child = running.process.stdout, running.child
        timer = Deadline(running.process, timeout)
        child.stdout = out.read(1)
        child.first_output = time.monotonic()
        child.stdout += out.read()
        timer.cancel()
    return child


class Deadline:
    """Kills a process group when it has run for too long."""

    def __init__(self, popen: subprocess.Popen, seconds: float):
        import threading

        self.timer = threading.Timer(seconds, lambda: os.killpg(popen.pid, signal.SIGKILL))
        self.timer.daemon = True
        self.timer.start()

    def cancel(self) -> None:
        self.timer.cancel()


def poll(ready: Callable[[], bool], *, timeout: float, what: str, every: float = 0.005) -> None:
    end = time.monotonic() + timeout
    while not ready():
        if time.monotonic() > end:
            raise BenchmarkError(f"{what} was not ready after {timeout:.0f} s")
        time.sleep(every)
