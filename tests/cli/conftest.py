"""What the tests of the command share."""

import contextlib

import pytest

from launched import Job


@pytest.fixture(name="launch")
def fixture_launch(command):
    with contextlib.ExitStack() as stack:
        def start(*arguments, env=None):
            job = Job(command, *arguments, env=env)
            stack.callback(job.process.kill)
            return job
        yield start
