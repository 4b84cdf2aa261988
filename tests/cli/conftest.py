"""What the tests of the command share."""

import contextlib

import pytest

from launched import Job


@pytest.fixture(name="launch")
def fixture_launch(command, tmp_path):
    # Not libtpu's own, which another program here may have or may have left.
    lockfile = ["--lockfile", str(tmp_path / "libtpu_lockfile")]
    with contextlib.ExitStack() as stack:
        def start(*arguments, env=None):
            own = [] if "--lockfile" in arguments else lockfile
            job = Job(command, *own, *arguments, env=env)
            stack.callback(job.process.kill)
            return job
        yield start
