"""Repair an environment whose torchvision does not match its torch, so that open_clip can be imported before lib.

`python -m book.tools.torchvision_first` is a step of the installation. Where torchvision can be imported, it does
nothing. Else it installs the torchvision build that matches torch; where there is none, it makes this environment
import `lib`, which declares the missing operators, before torchvision, by installing this file as a module.
"""

import importlib
import sys


class LibFirst:
    """An import hook that imports lib before torchvision; it finds no module itself."""

    @classmethod
    def find_spec(cls, name: str, path: object = None, target: object = None) -> None:
        if name == "torchvision":
            sys.meta_path.remove(cls)
            importlib.import_module("lib")


def main() -> None:
    """Make torchvision importable in the environment that runs this."""
    import shutil
    import subprocess
    import sysconfig
    from importlib.metadata import version
    from pathlib import Path

    def works() -> bool:
        return subprocess.run([sys.executable, "-c", "import torchvision"], capture_output=True).returncode == 0

    if works():
        return
    label = version("torch").partition("+")[2]
    if label:  # such as cpu
        wanted = f"torchvision=={version('torchvision').partition('+')[0]}+{label}"
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", wanted], capture_output=True)
    if not works():
        packages = Path(sysconfig.get_path("purelib"))
        shutil.copy(__file__, packages / "torchvision_first.py")
        line = "import sys, torchvision_first; sys.meta_path.insert(0, torchvision_first.LibFirst)\n"
        (packages / "torchvision_first.pth").write_text(line)
        print("torchvision was built for another torch; its operators, which the book does not need, are left out.")


if __name__ == "__main__":
    main()
