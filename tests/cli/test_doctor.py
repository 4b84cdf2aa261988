"""`ttpu doctor`: what was found, and what is wrong with the way to mend it."""

import os
import subprocess


def doctor(command, **environment):
    return subprocess.run([command, "doctor"], capture_output=True, text=True, check=False,
                          env={**os.environ, **environment})


def test_a_machine_that_is_set_up_has_no_problem(command):
    result = doctor(command)
    assert result.returncode == 0, result.stdout + result.stderr
    lines = result.stdout.splitlines()
    found = {line.split()[0] for line in lines}
    assert {"ttpu", "processors", "memory", "plugin", "devices", "cache"} <= found
    assert any(line.startswith("plugin") and " cpu, API 0." in line and "StableHLO" in line for line in lines)
    assert "problem" not in result.stdout
    assert "Everything works." in lines


def test_a_missing_plugin_is_a_problem_with_the_command_that_mends_it(command, tmp_path):
    result = doctor(command, TTPU_CACHE=str(tmp_path), TTPU_PLUGIN_PATH="")
    assert result.returncode != 0
    assert "ttpu plugin install cpu" in result.stdout
    assert "Everything works." not in result.stdout


def test_a_file_that_is_no_plugin_is_named(command, tmp_path):
    broken = tmp_path / "libbroken.so"
    broken.write_text("no library")
    result = doctor(command, TTPU_PLUGIN_PATH=str(broken))
    assert result.returncode != 0
    assert str(broken) in result.stdout
    assert "problem" in result.stdout


def test_a_cache_that_cannot_be_written_is_a_problem(command, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    result = doctor(command, TTPU_CACHE=str(file / "cache"))
    assert result.returncode != 0
    assert "TTPU_CACHE" in result.stdout
