"""`ttpu launch`: real processes, and remote shells that are stood in for by commands of this machine."""

import contextlib
import fcntl
import http.server
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time

import pytest

from launched import STUBBORN, free_port

HOSTS = ["--hosts", "a=127.0.0.1,b=127.0.0.2", "--rsh", "env TTPU_TEST_HOST={host}"]
SHOW = "import os; print(' '.join(f'{k}={v}' for k, v in sorted(os.environ.items()) if 'TPU' in k))"


@pytest.fixture(name="port")
def fixture_port():
    return ["--port", str(free_port())]


def variables(line) -> dict[str, str]:
    return dict(word.split("=", 1) for word in line.split() if "=" in word)


def wait_for_listener(port):
    end = time.monotonic() + 30
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        assert time.monotonic() < end, f"nobody listens on {port}"
        time.sleep(0.02)


# Output and environment


def test_the_command_arrives_byte_for_byte(launch):
    words = ["[INST] Hello, you [/INST]", "[]", "{}", "", "--", "--local", "-x", "%%", "a b"]
    status, out, err = launch("--local", "1", "--", sys.executable, "-c", "import sys; print(ascii(sys.argv[1:]))", *words).end()
    assert status == 0, err
    assert out == f"[0] {ascii(words)}\n"


def test_lines_say_whose_they_are(launch):
    status, out, err = launch("--local", "3", "--", "sh", "-c",
                              "echo I am $TTPU_PROCESS_ID of $TTPU_NUM_PROCESSES; echo oh >&2; printf unfinished").end()
    assert status == 0, err
    assert sorted(out.splitlines()) == sorted(
        line for i in range(3) for line in (f"[{i}] I am {i} of 3", f"[{i}] unfinished"))
    assert sorted(err.splitlines()) == ["[0] oh", "[1] oh", "[2] oh"]


def test_much_output_arrives_whole(launch):
    status, out, err = launch("--local", "2", "--", sys.executable, "-c",
                              "print('\\n'.join(f'{i:05} ' + 'x' * 90 for i in range(20000))); print('y' * 200000)").end()
    assert status == 0, err
    for process in "01":
        lines = [line[4:] for line in out.splitlines() if line.startswith(f"[{process}]")]
        assert lines[:20000] == [f"{i:05} " + "x" * 90 for i in range(20000)]
        assert "".join(lines[20000:]) == "y" * 200000


def test_each_process_gets_the_variables_of_libtpu(launch, tmp_path):
    for chip in range(4):
        (tmp_path / f"accel{chip}").touch()
    status, out, err = launch(*HOSTS, "--port", "23450", "--topology", "v5e:2x4", "--chips-folder", str(tmp_path),
                              "--env", "MORE_TPU=1", "--no-preflight", "--", sys.executable, "-c", SHOW).end()
    assert status == 0, err
    a, b = (variables(line) for line in sorted(out.splitlines()))
    assert a["TTPU_TEST_HOST"] == "a" and b["TTPU_TEST_HOST"] == "b"
    for host, seen in enumerate((a, b)):
        assert seen["TPU_WORKER_ID"] == seen["CLOUD_TPU_TASK_ID"] == seen["TTPU_PROCESS_ID"] == str(host)
        assert seen["TPU_WORKER_HOSTNAMES"] == "127.0.0.1,127.0.0.2"
        assert seen["TPU_PROCESS_ADDRESSES"] == "127.0.0.1:23452,127.0.0.2:23452"
        assert seen["TPU_PROCESS_PORT"] == "23452"
        assert (seen["TPU_PROCESS_BOUNDS"], seen["TPU_CHIPS_PER_PROCESS_BOUNDS"]) == ("1,2,1", "2,2,1")
        assert seen["TTPU_COORDINATOR"] == "127.0.0.1:23450" and seen["TTPU_NUM_PROCESSES"] == "2"
        assert seen["MORE_TPU"] == "1" and "TPU_VISIBLE_CHIPS" not in seen
    assert a["TTPU_JOB"] == b["TTPU_JOB"]


def test_processes_of_one_host_share_its_chips(launch, tmp_path):
    for chip in range(4):
        (tmp_path / f"accel{chip}").touch()
    status, out, err = launch("--local", "4", "--chips-folder", str(tmp_path), "--", sys.executable, "-c", SHOW).end()
    assert status == 0, err
    for place, line in enumerate(sorted(out.splitlines())):
        seen = variables(line)
        assert seen["TPU_VISIBLE_CHIPS"] == seen["CLOUD_TPU_TASK_ID"] == str(place)
        assert (seen["TPU_PROCESS_BOUNDS"], seen["TPU_CHIPS_PER_PROCESS_BOUNDS"]) == ("2,2,1", "1,1,1")
        assert seen["TPU_PROCESS_ADDRESSES"].split(",")[place].endswith(":" + seen["TPU_PROCESS_PORT"])


def test_a_hostfile_names_hosts_addresses_and_slots(launch, tmp_path, port):
    hostfile = tmp_path / "hosts"
    hostfile.write_text("# the slice\na 127.0.0.1 slots=2\n\nb 127.0.0.2 # the other\n")
    status, out, err = launch("--hostfile", str(hostfile), "--rsh", "env TTPU_TEST_HOST={host}", *port, "--",
                              "sh", "-c", "echo $TTPU_PROCESS_ID $TTPU_HOSTS").end()
    assert status == 0, err
    assert sorted(out.splitlines()) == ["[a/0] 0 a,a,b", "[a/1] 1 a,a,b", "[b] 2 a,a,b"]


# The end


def test_one_that_fails_ends_all_and_leaves_nothing(launch):
    script = f"[ $TTPU_PROCESS_ID = 1 ] && sleep 0.3 && exit 7; {STUBBORN}"
    status, _, err = launch("--local", "2", "--grace-period", "1", "--", "sh", "-c", script).end()
    assert status == 7
    assert "process 1 has ended with 7" in err


def test_a_signal_that_ends_a_process_is_named(launch):
    status, _, err = launch("--local", "2", "--", "sh", "-c", "[ $TTPU_PROCESS_ID = 0 ] || kill -SEGV $$; sleep 1000").end()
    assert status == 128 + signal.SIGSEGV
    assert "process 1 was ended by signal 11 (Segmentation fault)" in err


def test_a_high_status_is_no_signal(launch):
    status, _, err = launch("--local", "1", "--", "sh", "-c", "exit 255").end()
    assert status == 255
    assert "process 0 has ended with 255" in err


def test_a_long_grace_period_is_given(launch):
    script = "[ $TTPU_PROCESS_ID = 1 ] && sleep 0.5 && exit 3; trap 'sleep 0.5; echo goodbye; exit 0' TERM; sleep 1000 & wait"
    status, out, _ = launch("--local", "2", "--grace-period", "2200000", "--", "sh", "-c", script).end()
    assert (status, out) == (3, "[0] goodbye\n")


def test_a_signal_is_heeded_though_nobody_reads_the_output(launch):
    job = launch("--local", "1", "--grace-period", "1", "--", "yes")
    job.wait_for("y")
    time.sleep(1)  # until all pipes are full
    job.process.send_signal(signal.SIGTERM)
    assert job.process.wait(timeout=30) == 128 + signal.SIGTERM
    job.wait_until_gone()


def test_what_a_process_leaves_behind_ends_with_it(launch):
    job = launch("--local", "2", "--grace-period", "0", "--", "sh", "-c", "setsid sleep 1000 & setsid sleep 1000 & exit 0")
    assert job.end()[0] == 0


def test_signals_are_handed_on(launch):
    job = launch("--local", "2", "--", "sh", "-c",
                 "trap 'echo goodbye; kill $!; exit 0' TERM; echo ready; sleep 1000 & wait")
    job.wait_for("ready")
    job.wait_for("ready")
    job.process.send_signal(signal.SIGTERM)
    status, out, err = job.end()
    assert sorted(out.splitlines()) == ["[0] goodbye", "[1] goodbye"]
    assert status == 0, err


def test_who_does_not_heed_a_signal_is_killed(launch):
    job = launch("--local", "2", "--grace-period", "1", "--", "sh", "-c", STUBBORN)
    job.wait_for("ready")
    job.wait_for("ready")
    job.process.send_signal(signal.SIGTERM)
    status, _, _ = job.end()
    assert status == 128 + signal.SIGTERM


def test_nothing_survives_a_launcher_that_is_killed(launch):
    job = launch("--local", "2", "--grace-period", "1", "--", "sh", "-c", STUBBORN)
    job.wait_for("ready")
    job.wait_for("ready")
    assert len(job.survivors()) > 4
    job.process.kill()
    job.wait_until_gone()


def test_all_are_started_again_within_limits(launch):
    script = "echo try $TTPU_RESTARTS; [ $TTPU_RESTARTS = 2 ] || [ $TTPU_PROCESS_ID = 0 ] || exit 3; exit 0"
    status, out, err = launch("--local", "2", "--max-restarts", "2", "--", "sh", "-c", script).end()
    assert status == 0, err
    assert sorted(out.splitlines()) == [f"[{i}] try {k}" for i in range(2) for k in range(3)]
    status, _, err = launch("--local", "2", "--max-restarts", "1", "--", "sh", "-c", script).end()
    assert status == 3
    assert err.count("starting again") == 1


def test_a_command_that_is_not_there_is_not_tried_again(launch):
    status, _, err = launch("--local", "2", "--max-restarts", "5", "--", "no-such-command").end()
    assert status == 1
    assert "cannot start 'no-such-command': No such file or directory" in err
    assert "starting again" not in err


# Hosts that fail


def test_a_host_that_never_comes_up_is_named(launch, tmp_path, port):
    shell = tmp_path / "shell"
    shell.write_text('#!/bin/sh\nhost=$1; shift\n[ $host = b ] && exec sleep 1000\nexec "$@"\n')
    shell.chmod(stat.S_IRWXU)
    status, _, err = launch("--hosts", "a,b", "--rsh", str(shell), *port, "--start-timeout", "1", "--", "true").end()
    assert status == 1
    assert "DEADLINE_EXCEEDED: [launch] not up within 1 s: b;" in err


def test_a_host_that_refuses_is_named_with_what_its_shell_said(launch, tmp_path, port):
    shell = tmp_path / "shell"
    shell.write_text('#!/bin/sh\nhost=$1; shift\n[ $host = b ] && { echo "no route to b" >&2; exit 255; }\nexec "$@"\n')
    shell.chmod(stat.S_IRWXU)
    status, _, err = launch("--hosts", "a,b", "--rsh", str(shell), *port, "--", "true").end()
    assert status == 1
    assert "b has lost its agent, which ended with 255: no route to b" in err


def test_ssh_is_the_remote_shell(launch, tmp_path, port):
    ssh = tmp_path / "ssh"  # as the real one: what comes behind the host is for a shell
    ssh.write_text('#!/bin/sh\n[ "$1 $2" = "-o BatchMode=yes" ] || exit 9\nshift 4\nhost=$1; shift\n'
                   'export TTPU_TEST_HOST=$host\nexec sh -c "$*"\n')
    ssh.chmod(stat.S_IRWXU)
    status, out, err = launch("--hosts", "me@a,b", *port, "--", "sh", "-c", "echo $TTPU_TEST_HOST $TPU_WORKER_HOSTNAMES",
                              env={"PATH": f"{tmp_path}:{os.environ['PATH']}"}).end()
    assert status == 0, err
    assert sorted(out.splitlines()) == ["[b] b a,b", "[me@a] me@a a,b"]


def test_a_host_that_is_lost_while_it_runs_is_named(launch, port):
    job = launch(*HOSTS, *port, "--grace-period", "1", "--", "sh", "-c", f"echo agent $PPID; {STUBBORN}")
    pids = {}
    while len(pids) < 2:
        line = job.wait_for("agent")
        pids[line[1]] = int(line.split()[-1])
    job.wait_for("ready")
    os.kill(pids["b"], signal.SIGKILL)
    status, _, err = job.end()
    assert status == 1
    assert "b has lost its agent, which died of signal 9" in err


# Before the start


def test_chips_in_use_are_named(launch, tmp_path):
    chip = tmp_path / "accel0"
    chip.touch()
    with chip.open():
        status, out, err = launch("--local", "1", "--chips-folder", str(tmp_path), "--", "echo", "started").end()
    assert (status, out) == (1, "")
    assert f"localhost: {chip} is used by process {os.getpid()} (" in err


def test_hosts_that_do_not_make_the_topology_are_named(launch, tmp_path, port):
    for chip in range(4):
        (tmp_path / f"accel{chip}").touch()
    status, out, err = launch(*HOSTS, *port, "--chips-folder", str(tmp_path), "--topology", "v5e:4x4", "--", "true").end()
    assert (status, out) == (1, "")
    assert "v5e:4x4 has 16 chips, the hosts have 8: a (4), b (4)" in err
    status, _, err = launch("--local", "1", "--topology", "v5e", "--", "true").end()
    assert status == 1 and "'v5e' is no topology" in err


def test_hosts_with_different_plugins_are_named(launch, tmp_path, port):
    shell = tmp_path / "shell"
    shell.write_text('#!/bin/sh\nhost=$1; shift\nTTPU_PLUGIN_PATH=%s/$host.so exec "$@"\n' % tmp_path)
    shell.chmod(stat.S_IRWXU)
    (tmp_path / "a.so").write_text("one version")
    (tmp_path / "b.so").write_text("another")
    status, out, err = launch("--hosts", "a=127.0.0.1,b=127.0.0.2", "--rsh", str(shell), *port, "--", "true").end()
    assert (status, out) == (1, "")
    assert "different plugins: a.so" in err and "(11 bytes) on a; b.so" in err and "(7 bytes) on b" in err


def test_a_port_in_use_is_named(launch):
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        if port > 60000:
            pytest.skip("the free port is above those that --port takes")
        status, _, err = launch("--local", "1", "--port", str(port), "--", "true").end()
    assert status == 1
    assert f"localhost: port {port} is in use" in err


def test_a_stale_lock_is_removed_and_a_held_one_is_not(launch, tmp_path):
    lock = tmp_path / "libtpu_lockfile"
    lock.touch()
    status, _, err = launch("--local", "1", "--lockfile", str(lock), "--", "true").end()
    assert status == 0 and not lock.exists()
    assert "a stale lock file of libtpu was removed" in err
    for locked in (False, True):
        with lock.open("w") as held:
            if locked:
                fcntl.flock(held, fcntl.LOCK_EX)
            status, _, err = launch("--local", "1", "--lockfile", str(lock), "--", "true").end()
            assert status == 1 and lock.exists()
            assert f"libtpu's lock file is held by process {os.getpid()} (" in err
    status, _, _ = launch("--local", "1", "--lockfile", str(lock), "--no-preflight", "--", "true").end()
    assert status == 0


def test_a_lock_that_is_anothers_is_an_error(launch, tmp_path):
    # A folder stands for the file of another user: it cannot be opened either.
    status, out, err = launch("--local", "1", "--lockfile", str(tmp_path), "--", "true").end()
    assert (status, out) == (1, "")
    assert f"libtpu's lock file cannot be opened; remove {tmp_path} as its owner" in err


# Hosts that others know


class Metadata(http.server.BaseHTTPRequestHandler):
    """The metadata server of a slice of two TPU VMs."""

    def do_GET(self):
        values = {
            "agent-worker-number": str(self.server.worker),
            "worker-network-endpoints": "unknown:unknown:127.0.0.1,unknown:unknown:127.0.0.2",
            "accelerator-type": "v5litepod-8",
            "tpu-env": "ACCELERATOR_TYPE: 'v5litepod-8'\nTOPOLOGY: '2x4'\nWORKER_ID: '0'\n",
        }
        name = self.path.rpartition("/")[2]
        good = self.headers["Metadata-Flavor"] == "Google" and self.path.startswith("/computeMetadata/v1/instance/")
        self.send_response(200 if good and name in values else 404)
        self.end_headers()
        self.wfile.write(values.get(name, "").encode())

    def log_message(self, *_):
        pass


@pytest.fixture(name="tpu_vms")
def fixture_tpu_vms():
    """The flags of each of two TPU VMs."""
    with contextlib.ExitStack() as stack:
        flags = []
        port = str(free_port())
        for worker in range(2):
            server = http.server.HTTPServer(("127.0.0.1", 0), Metadata)
            server.worker = worker
            threading.Thread(target=server.serve_forever, daemon=True).start()
            stack.callback(server.shutdown)
            flags.append(["--tpu-vm", "--metadata-url", f"http://127.0.0.1:{server.server_port}", "--port", port])
        yield flags


def test_tpu_vms_find_each_other_by_their_metadata(launch, tpu_vms, tmp_path):
    for chip in range(4):
        (tmp_path / f"accel{chip}").touch()
    jobs = [launch(*flags, "--chips-folder", str(tmp_path), "--", sys.executable, "-c", SHOW) for flags in tpu_vms]
    names = set()
    for worker, job in enumerate(jobs):
        status, out, err = job.end()
        assert status == 0, err
        seen = variables(out)
        assert out.startswith(f"[worker-{worker}] ")
        assert seen["TPU_WORKER_ID"] == str(worker)
        assert seen["TPU_WORKER_HOSTNAMES"] == "127.0.0.1,127.0.0.2"
        assert seen["TPU_ACCELERATOR_TYPE"] == "v5litepod-8"
        assert (seen["TPU_PROCESS_BOUNDS"], seen["TPU_CHIPS_PER_PROCESS_BOUNDS"]) == ("1,2,1", "2,2,1")
        names.add(seen["TTPU_JOB"])
    assert len(names) == 1


def test_one_tpu_vm_that_fails_ends_the_others_and_all_start_again(launch, tpu_vms):
    script = "echo try $TTPU_RESTARTS; [ $TTPU_RESTARTS = 1 ] && exit 0; [ $TTPU_PROCESS_ID = 1 ] && exit 5; sleep 1000"
    jobs = [launch(*flags, "--max-restarts", "1", "--grace-period", "1", "--", "sh", "-c", script) for flags in tpu_vms]
    for worker, job in enumerate(jobs):
        status, out, err = job.end()
        assert status == 0, err
        assert out.splitlines() == [f"[worker-{worker}] try 0", f"[worker-{worker}] try 1"]
        assert "worker-1 has ended with 5" in err


def test_all_launchers_end_with_the_status_of_the_process_that_failed(launch, tpu_vms):
    script = "[ $TTPU_PROCESS_ID = 1 ] && exit 5; sleep 1000"
    jobs = [launch(*flags, "--grace-period", "1", "--", "sh", "-c", script) for flags in tpu_vms]
    for job in jobs:
        status, _, err = job.end()
        assert status == 5, err


def test_a_signal_ends_the_wait_for_another_host(launch, tpu_vms):
    job = launch(*tpu_vms[0], "--start-timeout", "60", "--", "true")
    wait_for_listener(int(tpu_vms[0][-1]) + 1)
    job.process.send_signal(signal.SIGTERM)
    status, _, err = job.end(seconds=20)
    assert status == 128 + signal.SIGTERM
    assert "signal 15 came while other hosts were waited for" in err


def test_a_tpu_vm_that_does_not_come_is_named(launch, tpu_vms):
    status, _, err = launch(*tpu_vms[0], "--start-timeout", "1", "--", "true").end()
    assert status == 1
    assert "missing: process 1 (worker-1)" in err


def test_a_tpu_vm_whose_launcher_is_killed_is_named(launch, tpu_vms):
    jobs = [launch(*flags, "--grace-period", "1", "--peer-timeout", "2", "--", "sh", "-c", STUBBORN) for flags in tpu_vms]
    for job in jobs:
        job.wait_for("ready")
    jobs[1].process.kill()
    status, _, err = jobs[0].end()
    assert status == 1
    assert "process 1 (worker-1) has ended without a goodbye" in err
    jobs[1].wait_until_gone()


def test_no_metadata_server_is_said(launch):
    status, _, err = launch("--tpu-vm", "--metadata-url", f"http://127.0.0.1:{free_port()}", "--", "true").end()
    assert status == 1
    assert "is this a TPU VM?" in err


def test_the_batch_script_of_slurm_starts_tasks_through_srun(launch, tmp_path, port):
    srun = tmp_path / "srun"
    srun.write_text('#!/bin/sh\nwhile [ "${1#--}" != "$1" ]; do case $1 in --nodelist=*) export TTPU_TEST_NODE=${1#*=};; esac; '
                    'shift; done\nexec "$@"\n')
    srun.chmod(stat.S_IRWXU)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_NODELIST": "tpu[08-09,11]-x,y"}
    status, out, err = launch(*port, "--slurm", "--", "sh", "-c", "echo $TTPU_TEST_NODE $TTPU_PROCESS_ID", env=environment).end()
    assert status == 0, err
    nodes = ["tpu08-x", "tpu09-x", "tpu11-x", "y"]
    assert sorted(out.splitlines()) == [f"[{node}] {node} {place}" for place, node in enumerate(nodes)]


def test_tasks_of_srun_and_pods_of_kubernetes_find_each_other(launch, port):
    slurm = [{"SLURM_JOB_NODELIST": "127.0.0.[1-3]", "SLURM_STEP_NODELIST": "127.0.0.[1-2]", "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
              "SLURM_NODEID": str(i)} for i in range(2)]
    pods = [{"TPU_WORKER_HOSTNAMES": "127.0.0.1,127.0.0.2", "TPU_WORKER_ID": str(i)} for i in range(2)]
    for environments in (slurm, pods):
        jobs = [launch(*port, "--", "sh", "-c", "echo $TTPU_PROCESS_ID of $TTPU_NUM_PROCESSES", env=each)
                for each in environments]
        for place, job in enumerate(jobs):
            status, out, err = job.end()
            assert status == 0, err
            assert out.endswith(f"] {place} of 2\n")


def test_outside_of_slurm_a_script_is_printed(launch):
    status, out, err = launch("--slurm", "--print", "--nodes", "4", "--", "ttpu", "serve", "my model").end()
    assert status == 0, err
    assert "#SBATCH --nodes=4\n#SBATCH --ntasks-per-node=1\n" in out
    assert out.endswith("ttpu launch --slurm --port 8490 -- ttpu serve 'my model'\n")
    assert subprocess.run(["bash", "-n"], input=out, text=True, check=False).returncode == 0
    status, _, err = launch("--slurm", "--", "true").end()
    assert status == 1 and "this is no SLURM allocation" in err


# The options of a job, and how texts for other schedulers write them.
OPTIONS = ["--folder", "/data", "--env", "A=b c", "--start-timeout", "60", "--grace-period", "40", "--max-restarts", "2", "--no-preflight"]
WRITTEN = ["--folder=/data", "--start-timeout=60", "--grace-period=40"]


def test_the_script_for_slurm_has_the_options_of_the_job(launch):
    status, out, err = launch("--slurm", "--print", "--nodes", "4", *OPTIONS, "--", "true").end()
    assert status == 0, err
    assert out.endswith(f"ttpu launch --slurm --port 8490 {' '.join(WRITTEN)} --max-restarts=2 '--env=A=b c' --no-preflight -- true\n")


def test_a_manifest_has_the_options_of_the_job(launch):
    yaml = pytest.importorskip("yaml")
    status, out, err = launch("--kubernetes", "--topology", "v5e:4x4", "--image", "i", *OPTIONS, "--", "true").end()
    assert status == 0, err
    spec = yaml.safe_load(out)["spec"]
    pod = spec["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    assert pod["containers"][0]["command"] == [
        "ttpu", "launch", "--port", "8490", "--topology=v5e:4x4", *WRITTEN, "--env=A=b c", "--no-preflight", "--", "true"]
    assert spec["failurePolicy"]["maxRestarts"] == 2
    assert pod["terminationGracePeriodSeconds"] == 55


@pytest.mark.parametrize("topology, hosts, chips, label", [
    ("v5e:4x4", 4, 4, "tpu-v5-lite-podslice"), ("v5e:2x4", 1, 8, "tpu-v5-lite-podslice"),
    ("v5p:2x2x4", 4, 4, "tpu-v5p-slice"), ("v4:4x4x12", 48, 4, "tpu-v4-podslice"), ("v6e:1x1", 1, 1, "tpu-v6e-slice")])
def test_kubernetes_gets_a_manifest(launch, topology, hosts, chips, label):
    yaml = pytest.importorskip("yaml")
    status, out, err = launch("--kubernetes", "--topology", topology, "--image", "registry/ttpu:1", "--name", "llama",
                              "--max-restarts", "3", "--", "ttpu", "serve", 'a "quoted" model', "[m]").end()
    assert status == 0, err
    manifest = yaml.safe_load(out)
    assert (manifest["kind"], manifest["apiVersion"]) == ("JobSet", "jobset.x-k8s.io/v1alpha2")
    assert manifest["spec"]["failurePolicy"]["maxRestarts"] == 3
    job = manifest["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert job["parallelism"] == job["completions"] == hosts
    pod = job["template"]["spec"]
    assert pod["nodeSelector"]["cloud.google.com/gke-tpu-accelerator"] == label
    assert pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"] == topology.partition(":")[2]
    container = pod["containers"][0]
    assert container["command"][-5:] == ["--", "ttpu", "serve", 'a "quoted" model', "[m]"]
    assert container["resources"]["limits"]["google.com/tpu"] == chips


@pytest.mark.parametrize("arguments, phrase", [
    (["--", "true"], "which hosts?"), (["--local", "2"], "no command was given"),
    (["--local", "2", "--hosts", "a", "--", "true"], "give one of"), (["--hosts", "a;rm", "--", "true"], "cannot be one"),
    (["--hosts", "-oProxyCommand=x", "--", "true"], "cannot be one"), (["--hosts", ",", "--", "true"], "cannot be one"),
    (["--hostfile", "/nonexistent", "--", "true"], "/nonexistent"),
    (["--kubernetes", "--topology", "v9:2x2", "--image", "x", "--", "true"], "'v9' is not known"),
    (["--kubernetes", "--topology", "v5e:2x2", "--", "true"], "--image"),
    (["--kubernetes", "--topology", "v5e:2x2", "--image", "x", "--name", "A b", "--", "true"], "A b"),
    (["--local", "1", "--env", "NOT_SET_ANYWHERE", "--", "true"], "NOT_SET_ANYWHERE"),
    (["--local", "3", "--topology", "v5e:axb", "--", "true"], "no topology"),
    *((["--kubernetes", "--topology", slice_, "--image", "x", "--", "true"], f"no slice {slice_}; ")
      for slice_ in ("v5e:3x5", "v4:4x4", "v5e:2x2x2", "v5p:2x2x3", "v6e:32x32")),
    (["--kubernetes", "--topology", "v5e:99999x99999", "--image", "x", "--", "true"], "no topology"),
    (["--kubernetes", "--topology", "v5e:2x2", "--image", "x", "--", b"a\xff"], "is not UTF-8"),
    (["--local", "1", "--print", "--", "true"], "--print is of --slurm"),
    (["--slurm", "--nodes", "2", "--", "true"], "--nodes 2 is of the script"),
    (["--local", "1", "true", "[a,b]"], "does not stand behind --"),
    (["--local", "1", "--", "echo", b"a\xff"], "the argument 'a\ufffd' is not UTF-8"),
    (["--local", "1", "--env", b"A=\xff", "--", "true"], "the variable 'A=\ufffd' is not UTF-8"),
])
def test_what_is_given_wrong_is_said(launch, arguments, phrase):
    status, out, err = launch(*arguments).end()
    assert status == 1 and out == ""
    assert err.startswith("ttpu: ") and phrase in err
