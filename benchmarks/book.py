"""Where the time of a build goes, chapter by chapter and by kind: `python -m benchmarks.book --profile check`.

Builds the profile as `make book` does; chapters that are up to date are not run and not shown. A kernel's main thread
is sampled (`kernel_sampler.py`): what worker processes do meanwhile counts as waiting for pictures.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd

from benchmarks.kernel_sampler import IDLE

SAMPLER = Path(__file__).with_name("kernel_sampler.py")


def table(folder: Path) -> pd.DataFrame:
    """Seconds by chapter and kind, of the files that samplers wrote; the last row and column are sums."""
    found = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    seconds = pd.DataFrame.from_dict(found, orient="index").fillna(0.0).drop(columns=IDLE, errors="ignore")
    seconds = seconds[seconds.sum().sort_values(ascending=False).index]
    seconds["all"] = seconds.sum(axis=1)
    seconds.loc["all"] = seconds.sum()
    return seconds.round(1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="tiny")
    parser.add_argument("--html", default="build/html")
    parser.add_argument("--cores", default=str(os.cpu_count() or 1))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        startup = folder / "ipython" / "profile_default" / "startup"
        startup.mkdir(parents=True)
        shutil.copy(SAMPLER, startup / "00_kernel_sampler.py")
        env = os.environ | {"IPYTHONDIR": str(folder / "ipython"), "MV_SAMPLES": str(folder)}
        command = [sys.executable, "-m", "book.tools.build", "--profile", options.profile, "--html", options.html]
        status = subprocess.run([*command, "--cores", options.cores, "--confirm"], env=env).returncode
        if any(folder.glob("*.json")):
            print(table(folder).to_string())
    return status


if __name__ == "__main__":
    sys.exit(main())
