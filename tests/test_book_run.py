"""The command that runs one notebook with a reader's own parameters."""

import errno
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from book.tools.parameters_cell import Declared, declared_parameters
from book.tools.run import absolute_paths, folder_of, named, values
from book.tools.run_notebook import Job, reported
from tests.small_book import lay_out, notebook, tool

DECLARED = {
    "expansions": Declared("list[Positive]", "[1, 4]", "sizes"),
    "steps": Declared("Count", "300", "steps"),
    "template": Declared("str", '"a photo of a {}"', "prompt"),
}


def test_a_notebook_is_named_by_its_number_its_name_or_its_path():
    for name in ("04", "04_monosemanticity", "notebooks/04_monosemanticity.ipynb"):
        assert named(name) == "04_monosemanticity"
    assert named("04a") == "04a_uniqueness"
    with pytest.raises(ValueError, match="there is no notebook '4': choose one of 01_menagerie"):
        named("4")


def test_values_are_read_by_the_declared_types():
    given = [["expansions", "8,16"], ["steps", "1e3"], ["template", "a {}, drawn"]]
    assert values(given, DECLARED) == {"expansions": [8, 16], "steps": 1000, "template": "a {}, drawn"}


@pytest.mark.parametrize(
    ("given", "says"),
    [(["step", "3"], "no parameter 'step': did you mean 'steps'"), (["steps", "2.5"], "steps must be a whole number")],
)
def test_what_does_not_fit_is_one_sentence(given, says):
    with pytest.raises(ValueError, match=says):
        values([given], DECLARED)


def test_relative_paths_that_lead_somewhere_from_here_are_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("pictures/train", "owner/model", "tiny", "openai"):
        (tmp_path / folder).mkdir(parents=True)
    for file in ("words.txt", "facts", "weights.pt"):
        (tmp_path / file).write_text("bat")
    for given, meant in {
        "folder:pictures/train[:200]": f"folder:{tmp_path}/pictures/train[:200]",
        "hf:owner/model": f"hf:{tmp_path}/owner/model",
        "owner/model": f"{tmp_path}/owner/model",
        "words.txt": f"{tmp_path}/words.txt",
        "open_clip:owner/model": f"open_clip:{tmp_path}/owner/model",
        "open_clip:ViT-B-32/weights.pt": f"open_clip:ViT-B-32/{tmp_path}/weights.pt",
        f"folder:{tmp_path}/pictures": f"folder:{tmp_path}/pictures",
    }.items():
        assert absolute_paths(given) == meant
        assert absolute_paths([given, 3]) == [meant, 3]
    for other in (
        "tiny",
        "facts",
        "open_clip:ViT-B-32/openai",
        "hf:openai/clip-vit-base-patch32",
        "folder:elsewhere",
        "menagerie:val[:60]",
        "",
        3,
        "a photo of a {}",
    ):
        assert absolute_paths(other) == other


@pytest.mark.parametrize("to", [".", "", "build/..", "~nobody-of-this-name/x", "a\0b"])
def test_a_folder_in_which_sources_would_be_written_over_is_refused(to):
    with pytest.raises(ValueError, match=r"choose build/mine|is not a valid folder"):
        folder_of(Path(to))


def test_the_folder_of_results_is_seen_from_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert folder_of(Path("mine")) == tmp_path / "mine"


def test_a_text_that_can_be_no_path_stays_as_it_is():
    for text in ("word " * 100, "folder:" + "a" * 300, "a\0b"):
        assert absolute_paths(text) == text


def test_a_folder_named_as_a_slice_is_found_from_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "set[1:2]").mkdir()
    assert absolute_paths("folder:set[1:2]") == f"folder:{tmp_path}/set[1:2]"
    assert absolute_paths("folder:set[1:2][:3]") == f"folder:{tmp_path}/set[1:2][:3]"


def test_a_word_of_a_list_is_no_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "topk").touch()
    assert values([["kind", "topk"]], {"kind": Declared("Kind", '"relu"', "")}) == {"kind": "topk"}


def test_the_parameters_cell_is_read_with_types_defaults_and_comments(tmp_path):
    nbformat.write(notebook(), tmp_path / "a.ipynb")
    assert declared_parameters(tmp_path / "a.ipynb") == {
        "n": Declared("int", "3", "a number"),
        "profile_dir": Declared("str", '"../build/x"', "where artifacts are kept"),
    }


def test_it_makes_its_folders_and_keeps_all_in_one_place_in_a_checkout_of_any_name(tmp_path, root):
    project = tmp_path / "a {n} checkout of Müller's"
    project.mkdir()
    lay_out(project, root)
    nbformat.write(
        notebook("from pathlib import Path\nPath(profile_dir, 'made').touch()"), project / "notebooks/a.ipynb"
    )
    result = tool(project, "book.tools.run", "a", "-p", "n", "4e1", "--to", "build/{birds} of $x")
    assert result.returncode == 0, result.stderr
    executed = nbformat.read(project / "build/{birds} of $x/notebooks/a.ipynb", as_version=4)
    assert executed.metadata.papermill.parameters == {"n": 40, "profile_dir": "../build/{birds} of $x"}
    assert (project / "build/{birds} of $x/made").is_file()


def test_a_failure_names_its_log_as_it_is_seen_from_here(tmp_path, root, monkeypatch):
    project = tmp_path / "checkout"
    project.mkdir()
    lay_out(project, root)
    nbformat.write(notebook("raise ValueError('so')"), project / "notebooks/a.ipynb")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(project)  # whose modules the tool is to find
    monkeypatch.setenv("PYTHONPATH", str(project))
    command = [sys.executable, "-m", "book.tools.run", "a", "--to", "mine"]
    result = subprocess.run(command, cwd=elsewhere, capture_output=True, text=True)
    assert result.returncode == 1
    assert "Traceback: mine/logs/a.log" in result.stderr
    assert (elsewhere / "mine/logs/a.log").is_file()


def test_a_full_disk_is_named_by_the_folder_on_it(tmp_path, monkeypatch, capsys):
    def full(job, shares):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("book.tools.run_notebook.run", full)
    assert reported(Job(tmp_path, "a", {}, Path("mine"), 1), {}) == 2
    assert capsys.readouterr().err == f"error: [Errno 28] No space left on device, in {tmp_path / 'mine'}\n"


def test_a_folder_that_cannot_be_written_to_is_one_sentence(tmp_path, capsys):
    (tmp_path / "mine").write_text("a file")
    job = Job(tmp_path, "a", {}, Path("mine"), 1)
    assert reported(job, {}) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert str(tmp_path / "mine") in said
    assert said.count("\n") == 1
