"""A profile that asks for something a notebook does not have is refused before anything runs."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from book.tools.profiles import Profile


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

    def profile(text: str) -> Profile:
        (tmp_path / "profiles" / "mine.yaml").write_text(text)
        return Profile("mine", tmp_path)

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


def test_a_misspelt_key_of_an_entry_is_an_error(project):
    with pytest.raises(ValueError, match="unknown key 'params'"):
        project("notebooks:\n  a: {params: {n: 1}}")


def test_a_notebook_that_does_not_exist_is_named(project):
    with pytest.raises(ValueError, match=r"there is no notebooks/c.ipynb"):
        project("notebooks:\n  c: {}").check()


def test_an_unknown_profile_is_answered_with_the_known_ones(project, tmp_path):
    project("notebooks: {}")
    with pytest.raises(ValueError, match="choose one of mine"):
        Profile("yours", tmp_path)


def test_every_profile_of_the_book_fits_its_notebooks(root):
    for path in (root / "profiles").glob("*.yaml"):
        Profile(path.stem, root).check()
