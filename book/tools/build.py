"""Build the book with Snakemake: what `make book` calls. Prints the notebooks' progress and errors only."""

import argparse
import fcntl
import hashlib
import json
import os
import re
import shlex
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import IO

from book.tools import supervised
from book.tools.executors import limits_here, on_slurm, on_this_machine, printing_logs
from book.tools.option_types import positive, whole
from book.tools.profiles import Profile, profiles_of_book
from book.tools.shares import LIMITS
from book.tools.site import check_target

LOG = Path("build/snakemake.log")


def snakemake(target: str, settings: Path, arguments: list[str], lock: IO) -> bool:
    """Make one target of the graph; true when there was something to do. Raises RuntimeError when a job failed.

    Jobs print to the terminal, Snakemake's own messages go to LOG.
    """
    command = [sys.executable, "-m", "book.tools.warm_kernels"]
    command += [sys.executable, "-m", "snakemake", target, "--configfile", str(settings)]
    command += [*arguments, "--rerun-incomplete", "--nolock", "--scheduler", "greedy"]
    with LOG.open("w") as log:
        status = supervised.run(command, held=lock, stderr=log)
    text = LOG.read_text(errors="replace")
    if status:
        raise RuntimeError(what_went_wrong(text))
    return "Nothing to be done" not in text


def what_went_wrong(text: str) -> str:
    """The error text of a failed Snakemake run, from its messages.

    Empty where a local job has printed its error; the log of a job that ran elsewhere; else the end of the messages.
    """
    if "CalledProcessError" in text:
        return ""
    logs = [Path(found) for found in re.findall(r"^ +log: (\S+\.log)", text, flags=re.MULTILINE)]
    said = [log.read_text(errors="replace").partition("Error in rule")[0] for log in logs if log.is_file()]
    return "\n".join("\n".join(job.splitlines()[-15:-1]) for job in said) + "\n" if said else text[-4000:]


def confirmed(profiles: list[Profile], options: argparse.Namespace) -> bool:
    """Whether the build is short enough to start; else print its plan and how to confirm it.

    A plan that was short is not made again while the profiles and the options are the same.
    """
    asked = {profile.name: {name: profile.parameters(name) for name in profile.entries} for profile in profiles}
    what = json.dumps([asked, options.executor, options.cores, options.tflops], default=str)
    noted, digest = Path("build", profiles[0].name, ".short_plan"), hashlib.sha256(what.encode()).hexdigest()
    if noted.is_file() and noted.read_text() == digest:
        return True
    from book.tools.plan import SHORT_HOURS, SMALL_BYTES, Plan, machine, needs_confirmation, show, size  # imports torch

    plans, here = [Plan.of(profile) for profile in profiles], machine(options.executor, options.cores, options.tflops)
    if not needs_confirmation(plans, here):
        noted.parent.mkdir(parents=True, exist_ok=True)
        noted.write_text(digest)
        return True
    print(show(plans, here, profiles[0].root))
    print(
        f"\nThis is more than {SHORT_HOURS:g} hours or {size(SMALL_BYTES)}: add CONFIRM=1 to start it.", file=sys.stderr
    )
    return False


def make(run: Callable[[str], bool]) -> None:
    """Run all notebooks, then render the pages; run: makes one target, true where there was something to do."""
    while run("notebooks"):
        pass  # see the Snakefile: notebooks that read a remade one are checked in the next round
    run("book")


def build(options: argparse.Namespace, lock: IO) -> bool:
    """Check everything, then build the book; false where it has to be confirmed first."""
    profiles = profiles_of_book(options.profile)
    check_target(options.html, profiles[0].root, [profile.name for profile in profiles])
    if not options.confirm and not confirmed(profiles, options):
        return False
    if slurm := options.executor == "slurm":
        arguments = on_slurm(options.jobs)
    else:
        limits = limits_here(options.cores)
        arguments = on_this_machine(limits)
        os.environ[LIMITS] = json.dumps(limits)
    settings = Path("build/snakemake.json")
    settings.write_text(json.dumps({"profile": options.profile, "html": str(options.html)}))
    arguments += shlex.split(options.snakemake)
    with printing_logs([Path("build", profile.name, "logs") for profile in profiles]) if slurm else nullcontext():
        make(partial(snakemake, settings=settings, arguments=arguments, lock=lock))
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="tiny")
    parser.add_argument("--html", type=Path, default=Path("build/html"), help="folder of the rendered book")
    parser.add_argument("--executor", choices=["local", "slurm"], default="local")
    parser.add_argument("--cores", type=whole, default=os.cpu_count() or 1, help="of this machine")
    parser.add_argument("--jobs", type=whole, default=20, help="at once in the cluster's queue")
    parser.add_argument("--tflops", type=positive, help="speed that the plan assumes")
    parser.add_argument("--confirm", action="store_true", help="start a long or large build")
    parser.add_argument("--snakemake", default="", help="further arguments for Snakemake")
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
            if not build(options, lock):
                return 1
        except (ValueError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        except RuntimeError as error:
            print(f"{error}The book was not built: see above, and {LOG}. Finished notebooks are kept.", file=sys.stderr)
            return 1
        except supervised.Terminated as ended:
            print("The build was ended; finished notebooks are kept.", file=sys.stderr)
            return 128 + ended.signal
    print(f"The book is ready ({time.monotonic() - began:.0f} s).")
    print(f"Open {(options.html.expanduser() / 'index.html').resolve().as_uri()} or run `make serve`.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
