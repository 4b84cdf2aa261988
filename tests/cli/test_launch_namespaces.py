"""`ttpu launch` over two network namespaces: hosts whose network can be cut."""

import pathlib
import stat
import subprocess
import sys
import uuid

import pytest

from launched import STUBBORN, Job

# Runs what a connection asks for, as a host's sshd would.
DAEMON = """
import json, socket, subprocess
listener = socket.create_server(("10.213.7.2", 7022))
print("up", flush=True)
while True:
    connection, _ = listener.accept()
    line = b""
    while not line.endswith(b"\\n"):
        line += connection.recv(1)
    subprocess.Popen(json.loads(line), stdin=connection, stdout=connection, stderr=subprocess.DEVNULL)
    connection.close()
"""
# `shell HOST COMMAND...`: host a is here, host b is reached through the network.
SHELL = """#!{python}
import json, os, socket, sys, threading
if sys.argv[1] == "a":
    os.execvp(sys.argv[2], sys.argv[2:])
connection = socket.create_connection(("10.213.7.2", 7022))
connection.sendall(json.dumps(sys.argv[2:]).encode() + b"\\n")
def upwards():
    while data := os.read(0, 65536):
        connection.sendall(data)
    connection.shutdown(socket.SHUT_WR)
threading.Thread(target=upwards, daemon=True).start()
while data := connection.recv(65536):
    os.write(1, data)
"""


def ip(*arguments):
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)


@pytest.fixture(name="network")
def fixture_network():
    """The names of two namespaces, 10.213.7.1 and 10.213.7.2, and what cuts them off from each other."""
    a, b = (f"ttpu-{uuid.uuid4().hex[:8]}" for _ in range(2))
    commands = [["netns", "add", a], ["netns", "add", b],
                ["link", "add", "ttpu0", "netns", a, "type", "veth", "peer", "name", "ttpu0", "netns", b]]
    for name, address in ((a, "10.213.7.1/24"), (b, "10.213.7.2/24")):
        commands += [["-n", name, "address", "add", address, "dev", "ttpu0"], ["-n", name, "link", "set", "ttpu0", "up"],
                     ["-n", name, "link", "set", "lo", "up"]]
    try:
        for command in commands:
            done = ip(*command)
            if done.returncode != 0:
                pytest.skip(f"`ip {' '.join(command)}` is not permitted here: {done.stderr.strip()}")
        yield a, b, lambda: ip("-n", a, "link", "set", "ttpu0", "down")
    finally:
        for name in (a, b):
            ip("netns", "delete", name)


def test_a_host_that_is_cut_off_is_named_and_ends_what_it_runs(command, network, tmp_path):
    a, b, cut = network
    shell = tmp_path / "shell"
    shell.write_text(SHELL.format(python=sys.executable))
    shell.chmod(stat.S_IRWXU)
    mark = uuid.uuid4().hex
    daemon = subprocess.Popen(["ip", "netns", "exec", b, sys.executable, "-c", DAEMON], stdout=subprocess.PIPE, text=True)
    job = None
    try:
        assert daemon.stdout.readline() == "up\n"
        job = Job("ip", "netns", "exec", a, command, "launch", "--hosts", "a=10.213.7.1,b=10.213.7.2", "--rsh", str(shell),
                  "--lockfile", str(tmp_path / "libtpu_lockfile"), "--peer-timeout", "2", "--grace-period", "1",
                  "--env", f"TTPU_TEST_MARK={mark}", "--", "sh", "-c", STUBBORN,
                  mark=mark, before=())
        for _ in range(2):
            job.wait_for("ready")
        assert len(job.survivors()) > 4
        cut()
        _, err = job.process.communicate(timeout=60)
        assert job.process.returncode == 1
        assert "b has not been heard of for 2 s; the others are stopped" in err
        job.wait_until_gone()  # on both sides: b's agent no longer hears of the launcher
    finally:
        if job:
            job.process.kill()
        daemon.kill()
        daemon.wait()


def test_an_engine_whose_follower_is_cut_off_ends_with_its_name(command, network):
    a, b, cut = network
    model = pathlib.Path(__file__).resolve().parents[1] / "fixtures/models/llama"
    jobs = []
    try:
        for number, namespace in enumerate((a, b)):
            jobs.append(Job("ip", "netns", "exec", namespace, command, "bench", "throughput", str(model), "--num-prompts", "100000",
                            "--input-len", "8", "--output-len", "50", before=(), env={
                                "TTPU_NUM_PROCESSES": "2", "TTPU_PROCESS_ID": str(number), "TTPU_HOSTS": "a,b",
                                "TTPU_COORDINATOR": "10.213.7.1:8490", "TTPU_PEER_TIMEOUT": "2"}))
        assert jobs[1].process.stderr.readline() == "process 1 (b) follows process 0 (a)\n"
        cut()
        for job, other in zip(jobs, ("process 1 (b)", "process 0 (a)")):
            status, out, err = job.end()
            assert (status, out) == (1, "")
            assert f"{other} has not been heard of for 2 s" in err
    finally:
        for job in jobs:
            job.process.kill()
