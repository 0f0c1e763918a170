"""Estimate time, disk and memory of a build before it runs: `python -m book.tools.plan --profile paper`.

Speeds are assumptions that are printed and can be set; measured times of an earlier build correct them. Statistics and
plots get the same time in each notebook, fitted to the default profile (27 minutes on two cores). Rendering is not
counted.
"""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from book.tools.executors import gpus_here
from book.tools.option_types import positive, whole
from book.tools.profiles import Profile, profiles_of_book
from book.tools.work import Planner, Work

CPU_TFLOPS = 0.1  # of a core, sustained, in float32; the server of benchmarks/RESULTS.md makes 0.17
GPU_TFLOPS = 60  # sustained, in bfloat16: a guess, a fifth of an A100's peak
GPU_FLOAT32 = 0.25  # share of that speed in float32, in which dictionaries are trained
PHOTOGRAPHS_READ = 100  # a second and core: read, decoded and resized, of ImageNet's size
PICTURES_DRAWN = 350  # a second and core, of the Menagerie (benchmarks/RESULTS.md)
CHAPTER_SECONDS = 65  # of a core, for what is not counted: imports, statistics, plots
MOST_CORRECTION = 4.0  # largest factor of the correction, either way
BASE_MEMORY = 1.5e9  # Python and its libraries
COLUMNS = "  {:<24}{:>10}{:>10}{:>10}{:>10}{:>11}"
SHORT_HOURS, SMALL_BYTES = 2.0, 50e9  # what a build may take without being confirmed


@dataclass(frozen=True)
class Machine:
    """Assumed speed of a machine: `tflops` of its GPU, or of one of its `cores` where it has none."""

    gpu: bool
    tflops: float
    cores: int

    def hours(self, works: Iterable[Work], threads: int) -> float:
        """Hours of work items in a notebook with this number of threads."""
        cores = min(threads, self.cores)
        return sum(self._seconds(work, cores) for work in works) / 3600

    def _seconds(self, work: Work, cores: int) -> float:
        """A GPU computes while the cores read pictures; without one the cores do one after the other."""
        speed = self.tflops * (GPU_FLOAT32 if work.float32 else 1) if self.gpu else self.tflops * cores
        computing = work.flops / (speed * 1e12)
        reading = work.pictures / (cores * (PICTURES_DRAWN if work.drawn else PHOTOGRAPHS_READ))
        return max(computing, reading) if self.gpu else computing + reading


ANY_GPU = Machine(gpu=True, tflops=GPU_TFLOPS, cores=sys.maxsize)


def machine(executor: str, cores: int, tflops: float | None = None) -> Machine:
    """The machine that a build would run on: a cluster's GPU, this one's where it has one, else this one's cores."""
    if executor != "local" or gpus_here():
        return Machine(True, tflops or GPU_TFLOPS, sys.maxsize if executor != "local" else cores)
    return Machine(False, tflops or CPU_TFLOPS, cores)


@dataclass
class NotebookPlan:
    """Work that one notebook adds to those before it; `works` is None where it cannot be estimated."""

    name: str
    threads: int
    works: list[Work] | None
    measured: float | None = None  # seconds that its last run took, where there was one

    def hours(self, on: Machine) -> float:
        """Hours of the notebook from scratch."""
        return on.hours(self.works or (), self.threads) + CHAPTER_SECONDS / 3600

    def hours_left(self, on: Machine) -> float:
        """Hours of the work left; statistics and plots count only where the notebook has not run."""
        return on.hours(self.left, self.threads) + (CHAPTER_SECONDS / 3600 if self.measured is None else 0.0)

    @property
    def left(self) -> list[Work]:
        return [work for work in self.works or () if not work.done]

    @property
    def disk(self) -> float:
        return sum(work.disk for work in self.works or ())

    @property
    def memory(self) -> float:
        return BASE_MEMORY + max((work.memory for work in self.works or ()), default=0.0)


@dataclass
class Plan:
    """The plan of one profile; assumed: notes on unknown sizes; data_sets: gigabytes of each that it reads."""

    profile: str
    notebooks: list[NotebookPlan]
    assumed: list[str]
    data_sets: dict[str, float]

    @classmethod
    def of(cls, profile: Profile) -> "Plan":
        planner = Planner(profile)
        notebooks = [
            NotebookPlan(name, entry.threads, planner.of_notebook(name), measured_seconds(profile.executed(name)))
            for name, entry in profile.entries.items()
        ]
        return cls(profile.name, notebooks, list(planner.assumed), planner.data_sets)

    def hours(self, on: Machine) -> float:
        """Hours of all notebooks: in parallel as the cores allow, or one after the other on a GPU."""
        return _together(((one.hours(on), one.threads) for one in self.notebooks), on)

    def hours_left(self, on: Machine) -> float:
        """Hours of the work left, with the correction by the last build."""
        return _together(((one.hours_left(on), one.threads) for one in self.notebooks), on) * self.correction(on)

    def correction(self, on: Machine) -> float:
        """Measured over estimated time of the notebooks that were built, clipped; 1 where there is none."""
        built = [one for one in self.notebooks if one.measured is not None]
        if not built:
            return 1.0
        factor = sum(one.measured for one in built) / sum(3600 * one.hours(on) for one in built)
        return min(max(factor, 1 / MOST_CORRECTION), MOST_CORRECTION)

    @property
    def disk_left(self) -> float:
        return sum(work.disk for notebook in self.notebooks for work in notebook.left)


def _together(hours: Iterable[tuple[float, int]], on: Machine) -> float:
    """Hours of notebooks run in parallel: all core hours over the cores, at least the longest notebook's."""
    given = list(hours)
    if on.gpu or not given:
        return sum(time for time, _ in given)
    shared = sum(time * min(threads, on.cores) for time, threads in given) / on.cores
    return max(shared, max(time for time, _ in given))


def measured_seconds(executed: Path) -> float | None:
    """Seconds of a notebook's last run; None where there is none or its record cannot be read."""
    try:
        return float(json.loads(executed.read_text(encoding="utf-8"))["metadata"]["papermill"]["duration"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def show(plans: list[Plan], here: Machine, root: Path) -> str:
    """The plans as text."""
    lines = [line for plan in plans for line in _table(plan, here, root)]
    seconds, disk = 3600 * sum(plan.hours_left(here) for plan in plans), sum(plan.disk_left for plan in plans)
    free = shutil.disk_usage(root).free
    where, unit = ("a GPU", "GPU") if here.gpu else (f"{here.cores} CPU cores", "core")
    return "\n".join(
        [
            *lines,
            f"Left to do: {duration(seconds)} on {where}, {size(disk)} of disk ({size(free)} are free).",
            f"Assumed: {here.tflops:g} TFLOP/s a {unit} here (TFLOPS= changes it), {CPU_TFLOPS:g} a CPU core and "
            f"{GPU_TFLOPS:g} a GPU elsewhere, in float32 {GPU_FLOAT32:.0%} of that; a core reads {PHOTOGRAPHS_READ} "
            "photographs a second.",
            *_corrections(plans, here),
            f"Not counted: rendering. Statistics and plots: {CHAPTER_SECONDS} s of a core a notebook, more where "
            "resamples and permutations are many; notebooks marked - cannot be estimated. Interventions "
            "and answers are counted to a factor of about two.",
        ]
    )


def _corrections(plans: list[Plan], here: Machine) -> Iterable[str]:
    for plan in plans:
        if built := sum(one.measured is not None for one in plan.notebooks):
            yield (
                f"Corrected by ×{plan.correction(here):.2g}: measured over estimated time of the {built} notebooks "
                f"of {plan.profile} that were built."
            )


def _table(plan: Plan, here: Machine, root: Path) -> Iterable[str]:
    cpu = replace(here, gpu=False, tflops=CPU_TFLOPS) if here.gpu else here
    yield f"Profile {plan.profile}"
    yield COLUMNS.format("notebook", "disk", "memory", "on CPU", "on a GPU", "left here")
    for notebook in plan.notebooks:
        if notebook.works is None:
            yield COLUMNS.format(notebook.name, *"-----")
            continue
        hours = [notebook.hours(on) for on in (cpu, ANY_GPU)]
        left = notebook.hours_left(here) * plan.correction(here)
        yield _row(notebook.name, notebook.disk, notebook.memory, *hours, left)
    disk = sum(notebook.disk for notebook in plan.notebooks)
    memory = max((notebook.memory for notebook in plan.notebooks), default=0.0)
    yield _row("in all", disk, memory, plan.hours(cpu), plan.hours(ANY_GPU), plan.hours_left(here))
    if there := sum(file.stat().st_size for file in (root / "build" / plan.profile).rglob("*") if file.is_file()):
        yield f"  There already: {size(there)} in build/{plan.profile}."
    yield from (f"  Data set beside it: {name}, about {size(gb * 1e9)}." for name, gb in plan.data_sets.items())
    yield from (f"  Assumed: {text}" for text in plan.assumed)
    yield ""


def _row(name: str, disk: float, memory: float, *hours: float) -> str:
    return COLUMNS.format(name, size(disk), size(memory), *(duration(3600 * time) for time in hours))


def size(count: float) -> str:
    """Bytes as text: 1.5 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit in ("B", "kB") else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def duration(seconds: float) -> str:
    """Time as text: 12 s, 5 min, 3.4 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def needs_confirmation(plans: list[Plan], here: Machine) -> bool:
    """Whether the work left exceeds `SHORT_HOURS` or `SMALL_BYTES`."""
    hours, disk = sum(plan.hours_left(here) for plan in plans), sum(plan.disk_left for plan in plans)
    return hours > SHORT_HOURS or disk > SMALL_BYTES


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="tiny")
    parser.add_argument("--executor", choices=["local", "slurm"], default="local")
    parser.add_argument("--cores", type=whole, default=os.cpu_count() or 1)
    parser.add_argument(
        "--tflops", type=positive, help="sustained speed of the GPU, or of a CPU core where there is none"
    )
    options = parser.parse_args()
    try:
        profiles = profiles_of_book(options.profile)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    here = machine(options.executor, options.cores, options.tflops)
    print(show([Plan.of(profile) for profile in profiles], here, profiles[0].root))
    return 0


if __name__ == "__main__":
    sys.exit(main())
