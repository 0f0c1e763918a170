"""The commands and the Python of README.md and book/*.md do what the text says.

Python is run with small stand-ins for what it names, where these exist; else (a hub to push to, a Slurm cluster) it is
compiled and its imports are made. Of shell blocks every command of make and of book.tools.run is checked to the last
word, without running what takes minutes. How many of each is counted at the end of the run.
"""

import ast
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from book.tools.parameters_cell import declared_parameters
from book.tools.run import named, values

ROOT = Path(__file__).resolve().parents[1]
TEXTS = ["README.md", "CONTRIBUTING.md", *sorted(str(file.relative_to(ROOT)) for file in (ROOT / "book").glob("*.md"))]
STAND_INS = {  # what a block names -> what is here
    r"\"(hf|open_clip):[\w./-]+\"": '"tiny"',
    r"\"(folder:[^\"]+|imagenet:\w+)\"": '"menagerie:val[:24]"',
    r"\d+\.resid_post": "7.resid_post",
    r"steps=\d+": "steps=2",
    r"batch_size=\d+": "batch_size=8",
}
NEEDS_ELSEWHERE = ("push_sae", "timm", "extract_and_train")  # a hub; a library that is not ours; several processes


def blocks(language: str) -> list:
    """(text, code) of all blocks in a language."""
    found = []
    for text in TEXTS:
        codes = re.findall(rf"^```{language}\n(.*?)^```", (ROOT / text).read_text(), flags=re.MULTILINE | re.DOTALL)
        found += [pytest.param(code, id=f"{Path(text).stem}-{i}") for i, code in enumerate(codes)]
    return found


def commands(code: str) -> list[list[str]]:
    """The words of each command, without its comment."""
    lines = code.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


@pytest.mark.parametrize("code", blocks("bash"))
def test_every_command_of_a_shell_block_is_one_that_is_there(code, record_property):
    for words in commands(code):
        if words[0] == "make":
            told = subprocess.run(
                ["make", "-n", *words[1:], "INSTALLED=Makefile"], cwd=ROOT, capture_output=True, text=True
            )
            assert told.returncode == 0, told.stderr
            known = re.findall(r"^(\w+)\s*\??=", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
            assert {word.partition("=")[0] for word in words[1:] if "=" in word} <= set(known)
        elif words[:3] == ["python", "-m", "book.tools.run"]:
            declared = declared_parameters(ROOT / "notebooks" / f"{named(words[3])}.ipynb")
            given = [words[i + 1 : i + 3] for i, word in enumerate(words) if word == "-p"]
            assert len(values(given, declared)) == len(given)
        elif words[0] == "papermill":
            name = named(words[1])
            given = [words[i + 1] for i, word in enumerate(words) if word == "-p"]
            assert set(given) <= declared_parameters(ROOT / "notebooks" / f"{name}.ipynb").keys()
        else:
            assert words[0] in {"source", "mkdir", "nbstripout", "accelerate", "rsync", "hf", "python"}, words
    record_property("shell blocks of the documentation checked", 1)


@pytest.mark.parametrize("code", blocks("python"))
def test_every_python_block_runs_or_where_it_needs_more_than_there_is_imports_what_it_names(
    code, record_property, tmp_path, monkeypatch
):
    if any(name in code for name in NEEDS_ELSEWHERE):
        imports = [node for node in ast.parse(code).body if isinstance(node, ast.Import | ast.ImportFrom)]
        ours = [node for node in imports if getattr(node, "module", None) and node.module.startswith("lib")]
        exec(compile(ast.Module(ours, []), "block", "exec"), {})
        record_property("Python blocks of the documentation compiled and imported only", 1)
        return
    for pattern, here in STAND_INS.items():
        code = re.sub(pattern, here, code)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "block", "exec"), {"__name__": "block"})
    record_property("Python blocks of the documentation run", 1)
