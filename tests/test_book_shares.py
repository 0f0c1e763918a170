"""No more notebooks run at once than the cores, the memory and the GPUs of a build allow."""

import json
import os
import subprocess
import sys
import time

import pytest

from book.tools.shares import LIMITS, reserved

HOLDER = """
import json, sys, time
from pathlib import Path
from book.tools.shares import reserved
with reserved(json.loads(sys.argv[1]), Path("running")):
    with open("log", "a") as log:
        print("+", sys.argv[1], file=log, flush=True)
        time.sleep(float(sys.argv[2]))
        print("-", sys.argv[1], file=log, flush=True)
"""


def hold(folder, root, wanted: dict, seconds: float, limits: dict) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(root), LIMITS: json.dumps(limits)}
    command = [sys.executable, "-c", HOLDER, json.dumps(wanted), str(seconds)]
    return subprocess.Popen(command, cwd=folder, env=environment)


@pytest.mark.parametrize(
    ("limits", "wanted"),
    [
        ({"cores": 2, "mem_mb": 1000, "gpu": 1}, [{"cores": 1, "mem_mb": 1, "gpu": 0}] * 6),
        ({"cores": 8, "mem_mb": 1000, "gpu": 1}, [{"cores": 1, "mem_mb": 600, "gpu": 0}] * 3),
        ({"cores": 8, "mem_mb": 1000, "gpu": 1}, [{"cores": 1, "mem_mb": 1, "gpu": 1}] * 3),
        ({"cores": 2, "mem_mb": 9, "gpu": 1}, [{"cores": 99, "mem_mb": 99, "gpu": 9}, {"cores": 1}]),
    ],
    ids=["cores", "memory", "GPU", "more than there is"],
)  # fmt: skip
def test_never_more_at_once_than_there_is(tmp_path, root, limits, wanted):
    for process in [hold(tmp_path, root, one, 0.2, limits) for one in wanted]:
        assert process.wait(timeout=120) == 0
    used = dict.fromkeys(limits, 0)
    for line in (tmp_path / "log").read_text().splitlines():
        for name, number in json.loads(line[2:]).items():
            used[name] += min(number, limits[name]) * (1 if line[0] == "+" else -1)
            assert used[name] <= limits[name]
    assert used == dict.fromkeys(limits, 0)


def test_what_was_killed_holds_nothing(tmp_path, root):
    limits, wanted = {"cores": 1}, {"cores": 1}
    killed = hold(tmp_path, root, wanted, 600, limits)
    while not (tmp_path / "log").is_file():
        time.sleep(0.05)
    killed.kill()
    killed.wait()
    assert hold(tmp_path, root, wanted, 0, limits).wait(timeout=60) == 0


def test_outside_a_build_nothing_is_shared(tmp_path, monkeypatch):
    monkeypatch.delenv(LIMITS, raising=False)
    with reserved({"cores": 99}, tmp_path / "running"):
        assert not (tmp_path / "running").exists()
