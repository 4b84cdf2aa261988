"""Runs one process at a time and says how busy the rest of the machine was meanwhile."""

import os
import resource
import signal
import subprocess
import tempfile
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
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
    """A process that has ended: what it printed, and the most memory it had resident."""

    started: float  # time.monotonic() just before it was started
    first_output: float  # when its first byte of output came
    stdout: bytes
    peak_rss_bytes: int


def run(command: list, *, stdin: str = "", environment: dict | None = None, timeout: float = 600.0) -> Child:
    """Runs a command to its end. A failure is a BenchmarkError with the end of what it printed to standard error."""
    words = [str(word) for word in command]
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as stderr:
        given.write(stdin.encode())
        given.seek(0)
        started = time.monotonic()
        popen = subprocess.Popen(words, stdin=given, stdout=subprocess.PIPE, stderr=stderr,
                                 env={**os.environ, **(environment or {})}, start_new_session=True)
        deadline = threading.Timer(timeout, os.killpg, [popen.pid, signal.SIGKILL])
        deadline.daemon = True
        deadline.start()
        try:
            first_byte = popen.stdout.read(1)
            first_output = time.monotonic()
            stdout = first_byte + popen.stdout.read()
        except BaseException:
            os.killpg(popen.pid, signal.SIGKILL)
            raise
        finally:
            _, status, usage = os.wait4(popen.pid, 0)
            popen.returncode = os.waitstatus_to_exitcode(status)
            popen.stdout.close()
            deadline.cancel()
        if popen.returncode != 0:
            stderr.seek(0)
            lines = [line for line in stderr.read().decode(errors="replace").splitlines() if line.strip()]
            raise BenchmarkError(f"{(lines or ['it said nothing'])[-1]}\n"
                                 f"(exit status {popen.returncode}: {' '.join(words)})\n" + "\n".join(lines[-12:-1]))
    return Child(started, first_output, stdout, usage.ru_maxrss * 1024)
