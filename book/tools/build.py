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
LOG = Path("build/snakemake.log")


def snakemake(target: str, profile: str, cores: int) -> bool:
    """Make one target of the graph; true when there was something to do. Raises RuntimeError when a job failed.

    Jobs print to the terminal, Snakemake's own messages go to LOG. The machine's memory is shared out, so that no more
    notebooks run at once than fit.
    """
    memory_mb = int(psutil.virtual_memory().total / 2**20 * 0.8)
    command = [sys.executable, "-m", "snakemake", target, "--cores", str(cores), "--config", f"profile={profile}"]
    command += ["--resources", f"mem_mb={memory_mb}", "--rerun-incomplete", "--nolock", "--scheduler", "greedy"]
    with LOG.open("w") as log:
        status = subprocess.run(command, stderr=log).returncode
    text = LOG.read_text()
    if status:
        job_failed = "CalledProcessError" in text  # then the job itself has said why
        raise RuntimeError("" if job_failed else text[-4000:])
    return "Nothing to be done" not in text


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
        try:
            while snakemake("notebooks", options.profile, options.cores):
                pass  # see the Snakefile: what waits for a remade notebook is looked at in the next round
            snakemake("book", options.profile, options.cores)
        except RuntimeError as error:
            print(f"{error}The book was not built: see above, and {LOG}. Finished notebooks are kept.", file=sys.stderr)
            return 1
    print(f"The book is ready ({time.monotonic() - began:.0f} s).")
    print(f"Open {PAGE.resolve().as_uri()} or run `make serve`.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
