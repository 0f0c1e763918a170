"""Build a profile through a real Slurm and compare it with a local build: `python tests/cluster/run_book.py [PROFILE]`.

As root on Debian, after `apt-get install slurm-wlm munge`, with the `cluster` extra installed. Prints what was checked
and ends with status 1 where anything is not as it should be.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
from loopback_slurm import loopback_slurm, missing_programs

ROOT = Path(__file__).resolve().parents[2]
CLOCK = re.compile("seconds|minutes|per_second|time")


def copy_of_project(folder: Path) -> Path:
    """The tracked files and those not yet tracked, as they are now."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    ).stdout.split("\0")
    for name in filter(None, listed):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    if (ROOT / "build" / "vendor").is_dir():
        shutil.copytree(ROOT / "build" / "vendor", folder / "build" / "vendor")
    return folder


def build(project: Path, profile: str, *arguments: str) -> None:
    command = [sys.executable, "-m", "book.tools.build", "--profile", profile, *arguments]
    environment = os.environ | {"PYTHONPATH": str(project)}
    subprocess.run(command, cwd=project, env=environment, check=True)


def numbers(project: Path, profile: str) -> dict[str, object]:
    """Everything that a build computed: results without what a clock measured, and digests of all tensors."""
    build = project / "build" / profile
    results = {path.name: without_clock(json.loads(path.read_text())) for path in sorted(build.glob("results/*.json"))}
    tensors = sorted(build.rglob("*.safetensors"))
    return results | {str(p.relative_to(build)): hashlib.sha256(p.read_bytes()).hexdigest() for p in tensors}


def without_clock(value):
    if isinstance(value, dict):
        return {key: without_clock(item) for key, item in value.items() if not CLOCK.search(key)}
    return [without_clock(item) for item in value] if isinstance(value, list) else value


def finished_jobs(slurm: Path) -> dict[str, dict[str, str]]:
    """What Slurm itself wrote of the jobs that ended, by job number."""
    lines = (slurm / "jobs.txt").read_text().splitlines()
    jobs = [dict(re.findall(r"(\w+)=(\S*)", line)) for line in lines]
    return {job["JobId"]: job for job in jobs}


def problems(project: Path, profile_name: str, slurm: Path) -> list[str]:
    """Notebooks that did not run as a job of Slurm with the resources of their profile."""
    from book.tools.profiles import Profile

    jobs, found = finished_jobs(slurm), []
    profile = Profile(profile_name, project)
    for name, entry in profile.entries.items():
        number = nbformat.read(profile.executed(name), as_version=4).metadata["monosemantic"].get("slurm_job")
        job = jobs.get(number or "")
        if job is None:
            found.append(f"{name} was not run by Slurm (its record names job {number})")
            continue
        got = {key: job[key] for key in ("JobState", "TimeLimit", "ProcCnt")} | {"mem": f"mem={entry.memory_mb}M"}
        wanted = {"JobState": "COMPLETED", "TimeLimit": str(entry.runtime), "ProcCnt": str(entry.threads)}
        found += [f"{name}: {key} is {got[key]}, not {value}" for key, value in wanted.items() if got[key] != value]
        if got["mem"] not in job["Tres"]:
            found.append(f"{name}: {job['Tres']} has no {got['mem']}")
        print(f"{name:22} Slurm job {number}: {job['JobState']}, {job['Tres']}, limit {job['TimeLimit']} min")
    return found


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("profile", nargs="?", default="tiny")
    options.add_argument("--against", type=Path, help="a clone with a finished local build, instead of one made now")
    options = options.parse_args()
    profile = options.profile
    if missing := missing_programs():
        print(f"error: {', '.join(missing)} not found: apt-get install slurm-wlm munge", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="slurm-") as temporary:
        folder = Path(temporary)
        folder.chmod(0o755)
        there = copy_of_project(folder / "there")
        with loopback_slurm(folder / "slurm"):
            build(there, profile, "--executor", "slurm", "--jobs", "2")
        found = problems(there, profile, folder / "slurm")
        here = options.against or copy_of_project(folder / "here")
        if options.against is None:
            build(here, profile, "--cores", "2")
        local, cluster = numbers(here, profile), numbers(there, profile)
        differing = sorted(name for name in local.keys() | cluster.keys() if local.get(name) != cluster.get(name))
        found += [f"{name} differs from the local build's" for name in differing]
        print(f"{len(local)} results and tensor files compared, {len(differing)} differ")
        if not (there / "build" / "html" / "index.html").is_file():
            found.append("the book was not rendered")
    print("\n".join(found) or "The book built through Slurm equals the local one.")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
