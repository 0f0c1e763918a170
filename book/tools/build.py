"""Build the book with Snakemake: what `make book` calls. Shows only what the notebooks report and what went wrong."""

import argparse
import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil

PAGE = Path("build/html/index.html")


def snakemake(profile: str, cores: int) -> int:
    """Run the graph; returns Snakemake's exit status. Memory is shared out so that parallel notebooks fit."""
    memory_mb = int(psutil.virtual_memory().total / 2**20 * 0.8)
    command = [sys.executable, "-m", "snakemake", "--cores", str(cores), "--config", f"profile={profile}"]
    command += ["--resources", f"mem_mb={memory_mb}", "--rerun-incomplete", "--nolock", "--scheduler", "greedy"]
    command += ["--quiet", "rules", "progress", "host", "reason"]
    return subprocess.run(command, env=os.environ | {"PYTHONWARNINGS": "ignore"}).returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="tiny")
    parser.add_argument("--cores", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    Path("build").mkdir(exist_ok=True)
    began = time.monotonic()
    with Path("build/.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("error: another build is running in this folder; wait for it to end.", file=sys.stderr)
            return 1
        failed = snakemake(options.profile, options.cores)
    if failed:
        print("The book was not built; what failed stands above. Finished notebooks are kept.", file=sys.stderr)
        return 1
    print(f"The book is ready ({time.monotonic() - began:.0f} s).")
    print(f"Open {PAGE.resolve().as_uri()} or run `make serve`.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
