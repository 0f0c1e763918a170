"""Run one notebook of a profile with papermill: `python -m book.tools.run_notebook 01_menagerie --profile tiny`.

The executed copy appears under `build/<profile>/notebooks` only when every cell has run. When a cell fails, the copy
with its red banner and a log are kept under `build/<profile>/logs`, and the last lines name the notebook and the cell.
"""

import argparse
import fcntl
import importlib.metadata
import logging
import os
import platform
import resource
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path

import papermill
from papermill.engines import NBClientEngine, papermill_engines
from papermill.exceptions import PapermillExecutionError

from book.tools.option_types import whole
from book.tools.profiles import Profile
from book.tools.shares import reserved
from book.tools.warm_kernels import MEMORY, QUIET

SHOWN_PACKAGES = (
    "torch", "torchvision", "open_clip_torch", "transformers", "numpy", "pandas", "pillow", "scikit-learn", "plotly",
    "anywidget", "papermill", "jupyter-book", "snakemake",
)  # fmt: skip
WORTH_A_LINE = 1.0  # seconds; shorter cells finish without one
GPU_DEVICES = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")  # of NVIDIA's driver, of Windows' for Linux, of AMD's
HEARTBEAT = 20.0  # seconds of silence after which a running cell's last line is shown


class Progress:
    """Progress of a notebook, on the terminal and in a log: a line for each slow cell, and a heartbeat."""

    def __init__(self, name: str, log: Path):
        self.name, self.log = name, log
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("")

    def say(self, text: str) -> None:
        line = f"{time.strftime('%H:%M:%S')}  {self.name:<22} {text}"
        print(line, flush=True)
        with self.log.open("a") as file:
            file.write(line + "\n")

    def watch(self, manager) -> threading.Event:
        """Wrap papermill's per-cell callbacks; set the event that is returned to end the heartbeat."""
        code = [i for i, cell in enumerate(manager.nb.cells) if cell.cell_type == "code"]
        number = {index: f"cell {n:>2}/{len(code)}" for n, index in enumerate(code, start=1)}
        running: dict[int, float] = {}
        started, completed = manager.cell_start, manager.cell_complete

        def cell_start(cell, cell_index=None, **kwargs):
            running[cell_index] = time.monotonic()
            return started(cell, cell_index, **kwargs)

        def cell_complete(cell, cell_index=None, **kwargs):
            seconds = time.monotonic() - running.pop(cell_index, time.monotonic())
            if cell_index in number and seconds >= WORTH_A_LINE:
                self.say(f"{number[cell_index]} {seconds:7.1f} s")
            return completed(cell, cell_index, **kwargs)

        def beat():
            while not done.wait(HEARTBEAT):
                for index, since in list(running.items()):
                    if index in number:
                        self.say(f"{number[index]} {time.monotonic() - since:7.1f} s … {_last_line(manager, index)}")

        manager.cell_start, manager.cell_complete = cell_start, cell_complete
        done = threading.Event()
        threading.Thread(target=beat, daemon=True).start()
        return done


def _last_line(manager, index: int) -> str:
    """The newest line that a running cell has printed."""
    streams = [output.text for output in manager.nb.cells[index].get("outputs", []) if output.output_type == "stream"]
    lines = "".join(streams).replace("\r", "\n").split("\n")
    return next((line.strip()[:100] for line in reversed(lines) if line.strip()), "running")


def environment() -> dict:
    """Versions and hardware of this process, for the status page."""
    import psutil

    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "gpu": _gpu(),
        "packages": {name: importlib.metadata.version(name) for name in SHOWN_PACKAGES},
    }


def _gpu() -> str | None:
    if sys.platform == "linux" and not any(map(os.path.exists, GPU_DEVICES)):
        return None  # without importing torch, which takes seconds
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def _processor() -> str:
    models = Path("/proc/cpuinfo")
    if models.is_file():
        names = [line.partition(":")[2].strip() for line in models.read_text().splitlines() if "model name" in line]
        if names:
            return names[0]
    return platform.processor() or platform.machine()


def peak_memory_mb(noted: Path) -> int:
    """The largest resident memory of any finished child process: the kernel's, or one of its workers'.

    noted: where the client of a forked kernel, which is no child of this process, has written it.
    """
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    if noted.is_file():
        peak = max(peak, int(noted.read_text()))
        noted.unlink()
    return round(peak / 2**20 if sys.platform == "darwin" else peak / 2**10)


@dataclass(frozen=True)
class Job:
    """A notebook to execute: `parameters` to inject, `folder` below the root for the executed copy and the logs."""

    root: Path
    name: str
    parameters: dict
    folder: Path
    threads: int
    data: Path | None = None


def run(job: Job, shares: dict[str, float]) -> Path:
    """Execute one notebook when its share of the machine is free; raises ValueError where another process runs it.

    Raises PapermillExecutionError where a cell fails, and leaves nothing half-written in place.
    """
    logs = job.root / job.folder / "logs"
    with _alone(job.name, logs), reserved(shares, job.root / "build" / ".running"), chdir(job.root):
        return _execute(job, Progress(job.name, logs / f"{job.name}.log"))


@contextmanager
def _alone(name: str, logs: Path) -> Iterator[None]:
    """Hold a lock so that no other process runs the notebook; the system releases it when this process ends."""
    logs.mkdir(parents=True, exist_ok=True)
    with (logs / f".{name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"the notebook {name} is being run by another process: wait for it to end.") from None
        yield


def _execute(job: Job, progress: Progress) -> Path:
    """Run all cells; paths are relative to the profile's root, or escaped: papermill takes braces for parameters."""
    target, partial = (job.folder / kind / f"{job.name}.ipynb" for kind in ("notebooks", "logs"))
    target.parent.mkdir(parents=True, exist_ok=True)

    papermill_engines.register("book", _engine(progress))
    progress.say("started")
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(job.threads)))
    memory = os.path.abspath(job.folder / "logs" / f".{job.name}.memory")
    os.environ[MEMORY] = memory
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    if job.data:
        os.environ.setdefault("MV_DATA", str(job.data))  # what is set on this machine comes first
    began = time.monotonic()
    try:
        notebook = papermill.execute_notebook(
            f"notebooks/{job.name}.ipynb",
            str(partial).replace("{", "{{").replace("}", "}}"),
            parameters=job.parameters,
            engine_name="book",
            cwd="notebooks",
            progress_bar=False,
            extra_arguments=["--IPKernelApp.log_level=40"],  # or each kernel warns that it talks over TCP
        )
    except PapermillExecutionError as error:
        progress.say(f"FAILED in cell {error.exec_count}: {error.ename}: {error.evalue}")
        with progress.log.open("a") as file:
            file.write("\n".join([error.source, *error.traceback]))
        raise
    notebook.metadata.papermill.output_path = str(target)
    record = {"environment": environment(), "peak_memory_mb": peak_memory_mb(Path(memory)), "threads": job.threads}
    notebook.metadata["monosemantic"] = record | {"slurm_job": os.environ.get("SLURM_JOB_ID")}
    papermill.iorw.write_ipynb(notebook, str(partial))
    partial.replace(target)
    progress.say(f"done in {time.monotonic() - began:.0f} s")
    return target


def _engine(progress: Progress) -> type[NBClientEngine]:
    """Papermill's engine, watched by `progress`."""

    class Engine(NBClientEngine):
        @classmethod
        def execute_managed_notebook(cls, nb_man, kernel_name, **kwargs):
            done = progress.watch(nb_man)
            try:
                return super().execute_managed_notebook(nb_man, kernel_name, **kwargs)
            finally:
                done.set()

    return Engine


def reported(job: Job, shares: dict[str, float]) -> int:
    """Run the job; the exit status, with what went wrong on stderr in a few lines."""
    logging.getLogger("papermill").setLevel(logging.ERROR)
    try:
        run(job, shares)
    except (ValueError, OSError) as error:  # such as a folder that is not writable
        nameless = isinstance(error, OSError) and error.filename is None  # as a full disk is
        print(f"error: {error}{f', in {os.path.abspath(job.root / job.folder)}' if nameless else ''}", file=sys.stderr)
        return 2
    except PapermillExecutionError as error:
        logs = os.path.relpath(job.root / job.folder / "logs" / job.name)  # seen from the reader
        first = (error.source.strip().splitlines() or [""])[0]
        print(
            f"\nNotebook {job.name} failed in cell [{error.exec_count}] which begins\n    {first}\n"
            f"with {error.ename}: {error.evalue}\nTraceback: {logs}.log   The run so far: {logs}.ipynb\n",
            file=sys.stderr,
        )
        return 1
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebook")
    parser.add_argument("--profile", default="tiny")
    parser.add_argument("--threads", type=whole, default=os.cpu_count() or 1)
    options = parser.parse_args()
    name, threads = options.notebook, options.threads
    try:
        profile = Profile(options.profile)
        profile.check()
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    entry, folder = profile.entries[name], Path("build", profile.name)
    shares = {"cores": threads, "mem_mb": entry.memory_mb, "gpu": entry.gpus}
    return reported(Job(profile.root, name, profile.parameters(name), folder, threads, profile.data), shares)


if __name__ == "__main__":
    sys.exit(main())
