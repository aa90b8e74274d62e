"""One driver at a time in a folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import dpa2md
import pytest
from dpa2md.base.processes import ProcessMark
from dpa2md.errors import RunError
from dpa2md.workflow.lock import run_lock

HOLD = """
import sys, time
from pathlib import Path
from dpa2md.errors import RunError
from dpa2md.workflow.lock import run_lock
try:
    with run_lock(Path(sys.argv[1])):
        print("held", flush=True)
        sys.stdin.read()
except RunError as error:
    print(error, flush=True)
"""


def holder(folder: Path) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(Path(dpa2md.__file__).parents[1])}
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def first_line(process: subprocess.Popen) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def end(process: subprocess.Popen) -> None:
    assert process.stdin
    process.stdin.close()
    process.wait(60)


def test_held_and_released(tmp_path):
    with run_lock(tmp_path / "run"):
        record = json.loads((tmp_path / "run" / "lock").read_text())
        assert record["pid"] == os.getpid()
        with (
            pytest.raises(RunError, match=f"in use by process {os.getpid()} on "),
            run_lock(tmp_path / "run"),
        ):
            pass
    assert not (tmp_path / "run" / "lock").exists()
    with run_lock(tmp_path / "run"):
        pass


def test_a_dead_owner_frees_it(tmp_path):
    process = holder(tmp_path)
    assert first_line(process) == "held"
    with pytest.raises(RunError, match=f"kill {process.pid}"), run_lock(tmp_path):
        pass
    process.kill()
    process.wait()
    assert (tmp_path / "lock").exists()
    with run_lock(tmp_path):
        pass


@pytest.mark.parametrize("text", ["", '{"pid": 1, "ho', "[]"])
def test_a_lock_that_was_cut_off(tmp_path, text):
    (tmp_path / "lock").write_text(text)
    with run_lock(tmp_path):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()


def test_another_host(tmp_path):
    record = vars(ProcessMark.of(os.getpid())) | {"host": "node-17", "since": "2026-11-27 08:00:00"}
    (tmp_path / "lock").write_text(json.dumps(record))
    with (
        pytest.raises(RunError, match=r"on node-17 since 2026.*remove .*/lock\.$"),
        run_lock(tmp_path),
    ):
        pass
    assert json.loads((tmp_path / "lock").read_text()) == record


def test_only_one_takes_over(tmp_path):
    """Of several that find the lock of a dead owner at the same time."""
    record = vars(ProcessMark.of(os.getpid())) | {"born": "long ago"}
    (tmp_path / "lock").write_text(json.dumps(record))
    processes = [holder(tmp_path) for _ in range(6)]
    lines = [first_line(process) for process in processes]
    for process in processes:
        end(process)
    assert sorted(line == "held" for line in lines) == [False] * 5 + [True]
