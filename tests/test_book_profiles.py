"""A profile that asks for something a notebook does not have is refused before anything runs."""

import re
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from book.tools.profiles import Entry, Profile, profiles_of_book
from experiments.vocabulary import load_vocabulary


@pytest.fixture
def project(tmp_path):
    """Two notebooks, `a` and `b`, and a way to load a profile text for them."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "profiles").mkdir()
    parameters = {"a": 'profile_dir: str = "x"\nn: int = 3  # pictures', "b": 'profile_dir: str = "x"\nk: int = 1'}
    for name, source in parameters.items():
        cell = new_code_cell(source, metadata={"tags": ["parameters"]})
        kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
        notebook = new_notebook(cells=[cell], metadata={"kernelspec": kernel})
        nbformat.write(notebook, tmp_path / "notebooks" / f"{name}.ipynb")

    def profile(text: str, name: str = "mine") -> Profile:
        (tmp_path / "profiles" / f"{name}.yaml").write_text(text)
        return Profile(name, tmp_path)

    return profile


def test_a_notebook_gets_its_own_values_the_shared_ones_it_declares_and_the_place_of_artifacts(project):
    profile = project("shared: {k: 5}\nnotebooks:\n  a: {parameters: {n: 7}}\n  b: {}")
    profile.check()
    assert profile.parameters("a") == {"n": 7, "profile_dir": "../build/mine"}
    assert profile.parameters("b") == {"k": 5, "profile_dir": "../build/mine"}


def test_an_unknown_parameter_is_named_with_the_one_that_was_meant(project):
    profile = project("notebooks:\n  a: {parameters: {profil_dir: 7}}")
    with pytest.raises(ValueError, match=r"mine.yaml, a: unknown parameter 'profil_dir'; did you mean 'profile_dir'"):
        profile.check()


def test_a_shared_parameter_that_no_notebook_has_is_an_error(project):
    with pytest.raises(ValueError, match="shared: unknown parameter 'seed'"):
        project("shared: {seed: 1}\nnotebooks:\n  a: {}").check()


def test_waiting_for_a_notebook_outside_the_profile_is_an_error(project):
    with pytest.raises(ValueError, match="unknown notebook in `after` 'b'"):
        project("notebooks:\n  a: {after: [b]}").check()


def test_reading_the_results_of_a_notebook_outside_the_profile_is_an_error(project):
    with pytest.raises(ValueError, match=r"unknown notebook in `reads` 'b'"):
        project("notebooks:\n  a: {reads: [b]}").check()


def test_a_misspelt_key_of_an_entry_is_an_error(project):
    with pytest.raises(ValueError, match="unknown key 'params'"):
        project("notebooks:\n  a: {params: {n: 1}}")


def test_a_notebook_that_does_not_exist_is_named(project):
    with pytest.raises(ValueError, match=r"there is no notebooks/c.ipynb"):
        project("notebooks:\n  c: {}").check()


@pytest.mark.parametrize(("data", "folder"), [("/data", "/data"), ("photos", "{root}/photos"), ("~/d", "{home}/d")])
def test_a_profile_can_name_the_folder_of_the_data_sets_and_those_that_extend_it_inherit_it(
    project, tmp_path, data, folder
):
    base = project(f"data: {data}\nnotebooks:\n  a: {{}}", "base")
    assert str(base.data) == folder.format(root=tmp_path.resolve(), home=Path.home())
    assert project("extends: base", "child").data == base.data
    assert project("notebooks:\n  a: {}").data is None


def test_an_unknown_profile_is_answered_with_the_known_ones(project, tmp_path):
    project("notebooks: {}")
    with pytest.raises(ValueError, match="choose one of mine"):
        Profile("yours", tmp_path)


def test_an_entry_says_what_the_scheduler_sets_aside(project):
    entry = project("notebooks:\n  a: {threads: 8, gpus: 2, memory_mb: 64000, runtime: 600}").entries["a"]
    assert entry == Entry(threads=8, gpus=2, memory_mb=64000, runtime=600)


def test_an_unknown_key_of_a_profile_is_an_error(project):
    with pytest.raises(ValueError, match="unknown key 'note-books'"):
        project("note-books: {}")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("notebooks:\n\ta: {}", "is not valid YAML"), ("shared: !!python/object/apply:os.getcwd []", "is not valid"),
        ("notebooks: [a]", "notebooks must be a mapping"), ("shared: [k]", "shared must be a mapping"),
        ("extends: [tiny]", "extends must be a text"), ("notebooks: {a: 5}", "holds '5' where keys are expected"),
        ("data: [5]", "data must be a text"), ("also: tiny", "also must be a list of texts"),
        ("[1]", "where keys are expected"),
        ("extends: 3", "extends must be a text, not 3"), ("data: 5", "data must be a text, not 5"),
        ("leave_out: {a: [why]}", "leave_out must be a mapping of texts"), ("leave_out: {a: }", "a mapping of texts"),
        ("", "runs no notebook"), ("notebooks: {a: {after: [a]}}", "a waits for a"),
        ("notebooks: {a: {after: [b]}, b: {reads: [a]}}", "a waits for b waits for a"),
        ("notebooks: {a: {memory_mb: lots}}", "memory_mb must be a number from 1"),
        ("notebooks: {a: {threads: -1}}", "threads must be a number from 1"),
        ("notebooks: {a: {after: b}}", "after must be a list of texts"),
        ("notebooks: {a: {parameters: {n: 2.5}}}", "a: n must be a whole number, not 2.5"),
        ("notebooks: {a: {parameters: {n: 1.0e+30}}}", "a: n must be a whole number, at most 1e.15, not 1e.30"),
        ("shared: {n: many}\nnotebooks: {a: {}}", "a: n must be a whole number, not 'many'"),
    ],
)  # fmt: skip
def test_what_is_no_profile_is_one_sentence_that_names_the_file(project, text, says):
    with pytest.raises(ValueError, match=says) as error:
        project(text).check()
    assert str(error.value).startswith("profiles/mine.yaml")
    assert "\n" not in str(error.value)


class TestExtends:
    BASE = "shared: {k: 5}\nnotebooks:\n  a: {parameters: {n: 7}, threads: 4}\n  b: {after: [a], gpus: 1}"

    @pytest.fixture
    def child(self, project):
        project(self.BASE, name="base")
        return lambda text: project(f"extends: base\n{text}", name="child")

    def test_what_it_does_not_say_is_the_other_profiles(self, child):
        profile = child("")
        assert profile.entries == {"a": Entry({"n": 7}, threads=4), "b": Entry(after=["a"], gpus=1)}
        assert profile.shared == {"k": 5}

    def test_artifacts_are_its_own(self, child):
        assert child("").parameters("a")["profile_dir"] == "../build/child"

    def test_values_are_merged_key_by_key(self, child):
        profile = child("shared: {k: 6}\nnotebooks:\n  a: {parameters: {profile_dir: x}, threads: 2}")
        assert profile.shared == {"k": 6}
        assert profile.entries["a"] == Entry({"n": 7, "profile_dir": "x"}, threads=2)

    def test_what_it_leaves_out_is_not_run_and_not_waited_for(self, child):
        profile = child("leave_out: {a: no animals here}")
        profile.check()
        assert profile.entries == {"b": Entry(gpus=1)}
        assert profile.left_out == {"a": "no animals here"}

    def test_what_the_other_leaves_out_it_may_run(self, project, child):
        project("leave_out: {a: too slow}\nnotebooks:\n  b: {}", name="base")
        assert child("notebooks:\n  a: {}").left_out == {}

    def test_a_circle_is_an_error(self, child, tmp_path):
        (tmp_path / "profiles" / "base.yaml").write_text("extends: child")
        with pytest.raises(ValueError, match="take one `extends` out"):
            child("")


def test_the_profiles_of_a_book_are_the_one_asked_for_and_those_along_with_it(project, tmp_path):
    project("title: B\nnotebooks:\n  b: {}", name="along")
    project("also: [along]\nnotebooks:\n  a: {}")
    profiles = profiles_of_book("mine", tmp_path)
    assert [(profile.name, profile.title, list(profile.entries)) for profile in profiles] == [
        ("mine", "mine", ["a"]),
        ("along", "B", ["b"]),
    ]


def test_a_profile_stands_once_in_a_book_however_often_it_is_named(project, tmp_path):
    project("notebooks:\n  b: {}", name="along")
    project("also: [mine, along, along]\nnotebooks:\n  a: {}")
    assert [profile.name for profile in profiles_of_book("mine", tmp_path)] == ["mine", "along"]


def test_a_fault_in_a_profile_along_with_another_is_found_too(project, tmp_path):
    project("notebooks:\n  b: {parameters: {n: 1}}", name="along")
    project("also: [along]\nnotebooks:\n  a: {}")
    with pytest.raises(ValueError, match=r"along.yaml, b: unknown parameter 'n'"):
        profiles_of_book("mine", tmp_path)


def test_every_profile_of_the_book_fits_its_notebooks(root):
    for path in (root / "profiles").glob("*.yaml"):
        profiles_of_book(path.stem, root)


def test_the_concepts_that_a_profile_steers_on_imagenet_are_names_of_its_classes(root):
    classes = set(load_vocabulary("imagenet"))
    for path in (root / "profiles").glob("*.yaml"):
        profile = Profile(path.stem, root)
        for name in profile.entries:
            parameters = profile.parameters(name)
            if str(parameters.get("train_images")).startswith("imagenet:"):
                steered = {"concept", "second"} & profile.declared[name].keys()
                assert {parameters.get(key) for key in steered} <= classes, f"{path.name}, {name}"


@pytest.mark.parametrize("name", ["check", "tiny", "photo", "paper"])
def test_a_profile_for_readers_runs_every_chapter_or_says_why_not(root, name):
    profile = Profile(name, root)
    chapters = set(re.findall(r"file: notebooks/(\S+)", (root / "_toc.yml").read_text()))
    assert chapters == profile.entries.keys() | profile.left_out.keys()
