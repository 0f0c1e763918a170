"""Snakemake's arguments for running notebooks on this machine or on a Slurm cluster, and following their logs."""

import importlib.util
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

PROGRESS_LINE = re.compile(r"\d\d:\d\d:\d\d  \S")
POLL = 2.0  # seconds between looks at the logs of notebooks that run elsewhere


def gpus_here() -> int:
    """NVIDIA GPUs of this machine; 0 without nvidia-smi."""
    if shutil.which("nvidia-smi") is None:
        return 0
    listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True).stdout
    return sum(line.startswith("GPU ") for line in listed.splitlines())


def limits_here(cores: int) -> dict[str, int]:
    """Cores, memory and GPUs that a build's notebooks share. Without a GPU the limit is 1, so that notebooks that ask
    for one run one at a time, on the CPU."""
    memory_mb = int(psutil.virtual_memory().total / 2**20 * 0.8)
    return {"cores": cores, "mem_mb": memory_mb, "gpu": max(1, gpus_here())}


def on_this_machine(limits: dict[str, int]) -> list[str]:
    """Snakemake's arguments for these limits; book/tools/shares.py enforces them."""
    shared = [f"{name}={number}" for name, number in limits.items() if name != "cores"]
    return ["--cores", str(limits["cores"]), "--resources", *shared]


def on_slurm(jobs: int) -> list[str]:
    """Snakemake's arguments for Slurm, a job a notebook, at most `jobs` at once. Raises ValueError without Slurm."""
    if shutil.which("sbatch") is None:
        raise ValueError("There is no Slurm here (no `sbatch`): run this on a login node of the cluster.")
    if importlib.util.find_spec("snakemake_executor_plugin_slurm") is None:
        raise ValueError(
            "Snakemake's executor for Slurm is not installed: pip install -c constraints.txt -e '.[cluster]'"
        )
    arguments = ["--executor", "slurm", "--jobs", str(jobs), "--latency-wait", "60"]
    if _has_accounting():
        return [*arguments, "--slurm-status-command", "sacct"]
    return [*arguments, "--slurm-status-command", "squeue"]


def _has_accounting() -> bool:
    """Whether the cluster has a job database; without one `squeue` lists finished jobs for some minutes."""
    return bool(shutil.which("sacct")) and subprocess.run(["sacct", "-n"], capture_output=True).returncode == 0


@contextmanager
def printing_logs(folders: list[Path]) -> Iterator[None]:
    """While the block runs, print what notebooks on other machines write to the logs in these folders."""
    read = {log: log.stat().st_size for folder in folders for log in folder.glob("*.log")}
    done = threading.Event()

    def show_new_lines() -> None:
        for log in sorted(log for folder in folders for log in folder.glob("*.log")):
            size = log.stat().st_size
            start = read.get(log, 0) if size >= read.get(log, 0) else 0  # a new run begins the log anew
            with log.open() as file:
                file.seek(start)
                text = file.read()
            complete = text[: text.rfind("\n") + 1]
            read[log] = start + len(complete.encode())
            for line in filter(PROGRESS_LINE.match, complete.splitlines()):
                print(line, flush=True)

    def follow() -> None:
        while not done.wait(POLL):
            show_new_lines()

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        show_new_lines()
