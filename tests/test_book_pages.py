"""What becomes of a chapter on its way to the rendered book: run, run by two profiles, or not run at all."""

import shutil

import nbformat
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from book.tools.pages import figures_drawn, page_not_run, page_of_another_profile, without_dangling
from book.tools.profiles import Profile
from book.tools.render import MODEL, MODEL_FILES, copy_page_files, stage

PLOT = new_output("display_data", data={"text/html": "<div></div>"})


def figure(name: str, *outputs) -> nbformat.NotebookNode:
    return new_code_cell("draw()", metadata={"mystnb": {"figure": {"name": name}}}, outputs=list(outputs))


def chapter(*cells) -> nbformat.NotebookNode:
    return new_notebook(cells=[new_markdown_cell("# Scores\n\n**Question.** Why?"), *cells])


def prose(notebook) -> str:
    return "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


class TestChapterNotRun:
    def test_says_so_below_its_title_and_gives_the_reason(self):
        page = page_not_run(chapter(), "photo", "photographs have no facts")
        title, note, rest = (cell.source for cell in page.cells)
        assert title == "# Scores"
        assert "Not run in this build" in note
        assert "<code>photo</code> leaves this chapter out: photographs have no facts." in note
        assert rest == "**Question.** Why?"

    def test_without_a_reason_it_says_just_that(self):
        assert "<code>photo</code> does not run this chapter." in prose(page_not_run(chapter(), "photo", None))


class TestChapterOfAnotherProfile:
    def test_its_title_says_which(self):
        assert prose(page_of_another_profile(chapter(), "siglip", "SigLIP")).startswith("# Scores: SigLIP\n")

    def test_its_labels_and_what_refers_to_them_are_its_own(self):
        words = "(scores)=\n$$ x $$ (eq-x)\n\nSee {numref}`fig-ms`, {eq}`eq-x`, {ref}`scores` and {numref}`fig-ms-all`."
        page = page_of_another_profile(chapter(figure("fig-ms", PLOT), new_markdown_cell(words)), "siglip", "SigLIP")
        assert figures_drawn(page) == {"fig-ms-siglip"}
        assert page.cells[-1].source == (
            "(scores-siglip)=\n$$ x $$ (eq-x-siglip)\n\n"
            "See {numref}`fig-ms-siglip`, {eq}`eq-x-siglip`, {ref}`scores-siglip` and {numref}`fig-ms-all`."
        )


class TestReferences:
    def test_a_figure_is_drawn_when_its_cell_shows_something(self):
        words = new_output("stream", text="no facts, no figure")
        page = chapter(figure("fig-a", PLOT), figure("fig-b", words), figure("fig-c"))
        assert figures_drawn(page) == {"fig-a"}

    def test_a_reference_to_a_figure_that_was_not_drawn_becomes_words(self):
        text = "In {numref}`fig-a` and {numref}`Figure %s <fig-b>`."
        assert without_dangling(text, {"fig-a"}) == "In {numref}`fig-a` and the figure (not drawn in this build)."


class TestStage:
    """The whole stage of a small book: `a` and `b` are its chapters, `main` runs `a`, `other` runs `a` too."""

    @pytest.fixture
    def staged(self, tmp_path):
        for folder in ("notebooks", "profiles", "book", "build/vendor", "build/main"):
            (tmp_path / folder).mkdir(parents=True)
        toc = {"root": "book/intro", "parts": [{"chapters": [{"file": f"notebooks/{name}"} for name in "ab"]}]}
        (tmp_path / "_toc.yml").write_text(yaml.safe_dump(toc))
        (tmp_path / "_config.yml").write_text("title: A book")
        (tmp_path / "book" / "intro.md").write_text("# Intro\n\n{numref}`fig-b` and {numref}`fig-a`")
        (tmp_path / "book" / "_static").mkdir()
        (tmp_path / "build" / "main" / "cover.webp").write_text("")
        for name in "ab":
            self.write(tmp_path / "notebooks" / f"{name}.ipynb", chapter(self.parameters(), figure(f"fig-{name}")))
        profiles = {"main": "also: [other]\nleave_out: {b: it is slow}", "other": "title: Other"}
        for name, text in profiles.items():
            (tmp_path / "profiles" / f"{name}.yaml").write_text(f"{text}\nnotebooks:\n  a: {{}}")
            run = chapter(self.parameters(), figure("fig-a", PLOT))
            run.metadata.papermill = {"duration": 1.0, "end_time": "2026-01-01T00:00:00", "parameters": {}}
            machine = {"processor": "x", "cores": 1, "memory_gb": 1, "gpu": None, "platform": "x", "python": "3"}
            run.metadata.monosemantic = {"environment": {**machine, "packages": {}}, "peak_memory_mb": 100}
            self.write(tmp_path / "build" / name / "notebooks" / "a.ipynb", run)
        return stage([Profile(name, tmp_path) for name in profiles], tmp_path / "stage")

    @staticmethod
    def parameters():
        return new_code_cell('profile_dir: str = "x"', metadata={"tags": ["parameters"]})

    @staticmethod
    def write(path, notebook):
        path.parent.mkdir(parents=True, exist_ok=True)
        notebook.metadata.kernelspec = {"name": "python3", "language": "python", "display_name": "Python 3"}
        nbformat.write(notebook, path)

    def test_the_other_profiles_run_hangs_below_its_chapter(self, staged):
        chapters = yaml.safe_load((staged / "_toc.yml").read_text())["parts"][0]["chapters"]
        assert chapters == [
            {"file": "notebooks/a", "sections": [{"file": "notebooks/a-other"}]},
            {"file": "notebooks/b"},
        ]
        assert "# Scores: Other" in (staged / "notebooks" / "a-other.ipynb").read_text()

    def test_a_chapter_left_out_is_there_with_its_reason(self, staged):
        assert "it is slow" in (staged / "notebooks" / "b.ipynb").read_text()

    def test_prose_refers_to_no_figure_that_is_not_there(self, staged):
        intro = (staged / "book" / "intro.md").read_text()
        assert "{numref}`fig-a`" in intro
        assert "{numref}`fig-b`" not in intro

    def test_the_status_page_tells_of_both_profiles_and_of_what_was_not_run(self, staged):
        status = (staged / "book" / "status.md").read_text()
        assert "(../notebooks/a.ipynb)" in status
        assert "(../notebooks/a-other.ipynb)" in status
        assert "| [`b`](../notebooks/b.ipynb) | it is slow |" in status

    def test_a_notebook_that_the_table_of_contents_does_not_list_is_an_error(self, staged):
        root = staged.parent
        shutil.copy(root / "notebooks" / "a.ipynb", root / "notebooks" / "c.ipynb")
        shutil.copy(
            root / "build" / "main" / "notebooks" / "a.ipynb", root / "build" / "main" / "notebooks" / "c.ipynb"
        )
        (root / "profiles" / "main.yaml").write_text("notebooks: {c: {}}")
        with pytest.raises(ValueError, match=r"runs c, which _toc.yml does not list"):
            stage([Profile("main", root)], root / "stage")


class TestWhatPagesLoad:
    """`copy_page_files`: what notebooks wrote for the reader's browser, and the model that it runs."""

    @pytest.fixture
    def profiles(self, tmp_path):
        (tmp_path / "profiles").mkdir()
        (tmp_path / MODEL).mkdir(parents=True)
        for name in (*MODEL_FILES, "training_log.jsonl"):
            (tmp_path / MODEL / name).write_text(name)
        for name in ("main", "other"):
            (tmp_path / "profiles" / f"{name}.yaml").write_text("notebooks: {}")
        return [Profile(name, tmp_path) for name in ("main", "other")]

    @staticmethod
    def write(profile: Profile, place: str) -> None:
        file = profile.root / "build" / profile.name / "page_files" / place
        file.parent.mkdir(parents=True)
        file.write_text(profile.name)

    def test_the_files_of_all_profiles_lie_below_static_with_what_the_model_needs(self, profiles, tmp_path):
        self.write(profiles[0], "steering/sae/config.json")
        self.write(profiles[1], "photos/config.json")
        copy_page_files(profiles, tmp_path / "_static")
        assert (tmp_path / "_static/page_files/steering/sae/config.json").read_text() == "main"
        assert (tmp_path / "_static/page_files/photos/config.json").read_text() == "other"
        assert {file.name for file in (tmp_path / "_static/llava").iterdir()} == set(MODEL_FILES)

    def test_a_book_whose_pages_load_nothing_has_no_model(self, profiles, tmp_path):
        copy_page_files(profiles, tmp_path / "_static")
        assert not (tmp_path / "_static").exists()

    def test_two_profiles_that_use_one_name_are_an_error(self, profiles, tmp_path):
        for profile in profiles:
            self.write(profile, "steering/config.json")
        with pytest.raises(ValueError, match=r"profiles main and other both write page_files/steering"):
            copy_page_files(profiles, tmp_path / "_static")
