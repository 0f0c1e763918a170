"""Show warnings in a notebook as sentences among a cell's outputs, without file, line and source.

Python writes warnings to stderr with a local path, and rendered pages leave out stderr of progress bars.
"""

import os
import re
import sys
import warnings
from pathlib import Path
from typing import Any

from experiments.markup import as_markdown

FOR_PROGRAMMERS = (DeprecationWarning, PendingDeprecationWarning, FutureWarning, ImportWarning, ResourceWarning)
_OF_PILLOW = "PIL"  # on the encoding of picture files that are read all the same
_FOLDERS = re.compile(r"(?<![\w./~-])/(?!/)(?:[^/\s'\"]+/)+")  # neither of a URL nor of a relative path


def show_as_sentences() -> None:
    """Show warnings of this process as sentences from now on; those for programmers, and Pillow's, are dropped."""
    from IPython.display import Markdown, display

    kernel = os.getpid()

    def show(message: Any, category: type[Warning], filename: str, *_place: Any, **_more: Any) -> None:
        if issubclass(category, FOR_PROGRAMMERS) or _OF_PILLOW in Path(filename).parts:
            return
        if os.getpid() == kernel:
            display(Markdown(f"**Warning:** {as_markdown(sentence(message))}"))
        else:  # a worker process, which has no display
            print(f"Warning: {sentence(message)}", file=sys.stderr)

    warnings.showwarning = show


def sentence(message: Any) -> str:
    """A warning's text with absolute paths cut to their last part."""
    return _FOLDERS.sub("", str(message)).strip()
