"""The earlier name of the package `storage`, under which scripts may still import its functions."""

import sys

from storage import *  # noqa: F403

if __name__ == "__main__":
    sys.exit("lib.artifacts has moved: write `python -m storage verify FOLDER`.")
