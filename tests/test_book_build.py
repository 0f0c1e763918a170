"""The graph and its tools: what runs again, what a failing notebook leaves behind, what reaches the rendered page."""

import fcntl
import json
import shutil
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from book.tools.pages import prepare_notebook
from tests.small_book import STUBS, lay_out, notebook, tool, write_profile, write_stub


@pytest.fixture
def project(tmp_path, root):
    """A small project with the real runner; what else a build needs is stubbed."""
    lay_out(tmp_path, root)
    for name in ("cover", "vendor", "render"):
        write_stub(tmp_path, name)
    return tmp_path


@pytest.fixture(scope="module")
def finished(tmp_path_factory, root):
    """A small project whose build is up to date."""
    project = tmp_path_factory.mktemp("finished") / "project"
    lay_out(project, root)
    for name in STUBS:
        write_stub(project, name)
    result = tool(project, "book.tools.build", "--cores", "1")
    assert result.returncode == 0, result.stderr
    return project


class TestWhatRunsAgain:
    @pytest.fixture
    def built(self, finished, tmp_path):
        copy = shutil.copytree(finished, tmp_path / "project")
        (copy / "ran.txt").write_text("")
        return copy

    @staticmethod
    def ran(project: Path) -> list[str]:
        """Build again; which jobs ran, in their order."""
        result = tool(project, "book.tools.build", "--cores", "1")
        assert result.returncode == 0, result.stderr
        return (project / "ran.txt").read_text().split()

    def test_everything_the_first_time_and_in_order(self, finished):
        first = (finished / "ran.txt").read_text().split()
        assert sorted(first) == ["a", "b", "c", "cover", "index", "plotly.min"]
        assert first.index("b") < first.index("c") < first.index("index")

    def test_nothing_when_nothing_has_changed(self, built):
        assert self.ran(built) == []

    def test_exactly_the_notebooks_that_import_a_changed_module(self, built):
        (built / "lib" / "two.py").write_text("from lib.one import ONE\nTWO = 2\n")
        assert self.ran(built) == ["c", "index"]

    def test_the_notebooks_that_import_it_through_another_module_too(self, built):
        (built / "lib" / "one.py").write_text("ONE = 1.0\n")
        assert self.ran(built) == ["b", "c", "index"]

    def test_a_changed_notebook_alone_and_not_those_that_wait_for_it(self, built):
        nbformat.write(notebook("from lib.one import ONE", "print(ONE)"), built / "notebooks" / "b.ipynb")
        assert self.ran(built) == ["b", "index"]

    def test_the_notebook_whose_parameter_has_changed(self, built):
        write_profile(built, {"a": {"parameters": {"n": 4}}, "b": {}, "c": {"after": ["b"]}})
        assert self.ran(built) == ["a", "index"]

    def test_every_notebook_when_a_package_that_lib_is_built_on_has_changed(self, built):
        (built / "book" / "tools" / "packages.py").write_text("def versions():\n    return {'torch': '99'}\n")
        assert sorted(self.ran(built)) == ["a", "b", "c", "index"]

    def test_what_a_profile_along_with_it_runs_is_run_too_with_artifacts_of_its_own(self, built):
        write_profile(built, {"b": {}}, name="other")
        write_profile(built, {"a": {}, "b": {}, "c": {"after": ["b"]}}, also=["other"])
        assert self.ran(built) == ["b", "index"]
        assert (built / "build" / "other" / "notebooks" / "b.ipynb").is_file()

    def test_a_notebook_that_wants_more_than_the_machine_has_gets_what_there_is(self, built):
        write_profile(built, {"a": {"gpus": 99, "threads": 99, "parameters": {"n": 4}}, "b": {}, "c": {"after": ["b"]}})
        assert self.ran(built) == ["a", "index"]

    def test_only_the_rendering_for_a_book_in_another_folder_and_the_first_one_stays(self, built):
        before = (built / "build/html/index.html").read_text()
        result = tool(built, "book.tools.build", "--cores", "1", "--html", "build/check/html")
        assert result.returncode == 0, result.stderr
        assert (built / "ran.txt").read_text().split() == ["index"]
        assert (built / "build/check/html/index.html").is_file()
        assert (built / "build/html/index.html").read_text() == before

    def test_only_the_rendering_when_the_prose_has_changed(self, built):
        (built / "book" / "intro.md").write_text("# Another intro\n")
        assert self.ran(built) == ["index"]


def test_a_checkout_may_lie_below_a_folder_of_any_name(tmp_path, root):
    project = tmp_path / "a {profile} of Müller's 100 %"
    project.mkdir()
    lay_out(project, root)
    for name in STUBS:
        write_stub(project, name)
    result = tool(project, "book.tools.build", "--cores", "1", "--html", "the {site} of o'brien")
    assert result.returncode == 0, result.stdout + result.stderr
    assert (project / "the {site} of o'brien" / "index.html").is_file()
    assert "index" in (project / "ran.txt").read_text()


class TestWhatABuildDoesToTheFolderOfThePages:
    def test_a_folder_with_other_files_is_refused_before_anything_runs(self, project):
        (project / "site").mkdir()
        (project / "site" / "index.html").write_text("my own page")
        result = tool(project, "book.tools.build", "--cores", "1", "--html", "site")
        assert result.returncode == 1
        assert result.stderr == (
            "error: HTML=site holds index.html, which this book did not write: "
            "move that away, or name another folder.\n"
        )
        assert (project / "site" / "index.html").read_text() == "my own page"
        assert not (project / "build" / "tiny").exists()

    def test_a_profile_is_a_name_and_no_path(self, project):
        (project / "x.yaml").write_text("notebooks: {}")
        result = tool(project, "book.tools.build", "--profile", "../x")
        assert result.returncode == 1
        assert "'../x' is not a valid profile name" in result.stderr


def test_notebooks_that_wait_for_one_do_not_run_at_once_on_one_core(project):
    """Snakemake's issue 3913: when a single job was ready before, it gives back a core that it never took."""
    noted = "import time\nlog = open('../ran.txt', 'a', buffering=1)\nlog.write('+')\ntime.sleep(0.5)\nlog.write('-')"
    for name in "abc":
        nbformat.write(notebook(noted), project / "notebooks" / f"{name}.ipynb")
    write_profile(project, {"a": {}, "b": {"after": ["a"]}, "c": {"after": ["a"]}})
    result = tool(project, "book.tools.build", "--cores", "1")
    assert result.returncode == 0, result.stderr
    assert (project / "ran.txt").read_text().replace("cover\n", "").replace("plotly.min\n", "")[:6] == "+-+-+-"


class TestRunner:
    def test_a_notebook_that_runs_already_is_not_run_beside_it(self, project):
        logs = project / "build" / "tiny" / "logs"
        logs.mkdir(parents=True)
        with (logs / ".a.lock").open("w") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            result = tool(project, "book.tools.run_notebook", "a")
        assert result.returncode == 2
        assert "the notebook a is being run by another process" in result.stderr

    def test_the_executed_copy_holds_the_profiles_values_and_where_it_ran(self, project):
        write_profile(project, {"a": {"parameters": {"n": 41}}})
        result = tool(project, "book.tools.run_notebook", "a")
        assert result.returncode == 0, result.stderr
        executed = nbformat.read(project / "build/tiny/notebooks/a.ipynb", as_version=4)
        assert executed.cells[-1].outputs[0].text.strip() == "41"
        assert executed.metadata.papermill.parameters == {"n": 41, "profile_dir": "../build/tiny"}
        assert executed.metadata.monosemantic.environment.packages.torch

    @pytest.mark.skipif(sys.platform != "linux", reason="kernels are forked on Linux alone")
    def test_a_build_forks_its_kernels(self, project):
        """On a crowded machine the first ones do not wait until the packages are imported."""
        for name in ("a", "b", "c"):
            nbformat.write(notebook("import sys\nprint(sys.argv[0])"), project / "notebooks" / f"{name}.ipynb")
        write_profile(project, {"a": {}, "b": {"after": ["a"]}, "c": {"after": ["b"]}})
        result = tool(project, "book.tools.build", "--cores", "1")
        assert result.returncode == 0, result.stderr
        executed = nbformat.read(project / "build/tiny/notebooks/c.ipynb", as_version=4)
        assert executed.cells[-1].outputs[0].text == "ipykernel_launcher\n", "a fresh kernel: see `warm_kernels.fits`"
        assert executed.metadata.monosemantic.peak_memory_mb > 20

    def test_a_kernel_reports_progress_seldom_and_no_weights_that_were_left_aside(self, project):
        bars = "from tqdm import tqdm\nimport time\nfor i in tqdm(range(30)): time.sleep(0.05)"
        asked = "import transformers\nprint(transformers.logging.get_verbosity() == transformers.logging.ERROR)"
        nbformat.write(notebook(bars, asked), project / "notebooks" / "a.ipynb")
        result = tool(project, "book.tools.run_notebook", "a")
        assert result.returncode == 0, result.stderr
        executed = nbformat.read(project / "build/tiny/notebooks/a.ipynb", as_version=4)
        shown = "".join(output.text for output in executed.cells[-2].outputs)
        assert len(shown.replace("\r", "\n").split("\n")) <= 5
        assert executed.cells[-1].outputs[0].text == "True\n"

    def test_a_failing_cell_is_named_and_leaves_a_log_but_no_result(self, project):
        nbformat.write(notebook("print('fine')", "open('nowhere')"), project / "notebooks" / "a.ipynb")
        result = tool(project, "book.tools.run_notebook", "a")
        assert result.returncode == 1
        assert "Notebook a failed in cell [4]" in result.stderr
        assert "open('nowhere')" in result.stderr
        assert "FileNotFoundError" in result.stderr
        assert "FileNotFoundError" in (project / "build/tiny/logs/a.log").read_text()
        assert not (project / "build/tiny/notebooks/a.ipynb").exists()

    def test_a_failing_notebook_fails_the_build(self, project):
        nbformat.write(notebook("1 / 0"), project / "notebooks" / "a.ipynb")
        result = tool(project, "book.tools.build", "--cores", "1")
        assert result.returncode == 1
        assert "Notebook a failed" in result.stdout

    def test_an_unknown_parameter_stops_the_build_before_anything_runs(self, project):
        write_profile(project, {"a": {}, "b": {"parameters": {"m": 1}}})
        result = tool(project, "book.tools.build", "--cores", "1")
        assert result.returncode == 1
        assert "unknown parameter 'm'" in result.stderr
        assert not (project / "build" / "tiny").exists()
        assert not (project / "ran.txt").exists()


class TestPage:
    def plot(self, alt: str) -> nbformat.NotebookNode:
        html = '<div class="plotly-graph-div"></div>'
        outputs = [new_output("display_data", data={"text/html": html, "application/vnd.plotly.v1+json": {}})]
        return new_code_cell("figure", metadata={"mystnb": {"image": {"alt": alt}}}, outputs=outputs)

    def test_plotlys_script_is_named_once_and_before_the_first_plot(self):
        page = prepare_notebook(new_notebook(cells=[self.plot("one"), self.plot("two")]))
        shown = [cell.outputs[0].data["text/html"] for cell in page.cells]
        assert [text.count("plotly.min.js") for text in shown] == [1, 0]

    def test_a_plot_carries_its_alternative_text(self):
        page = prepare_notebook(new_notebook(cells=[self.plot('loss "falls"')]))
        assert 'aria-label="loss &quot;falls&quot;"' in page.cells[0].outputs[0].data["text/html"]

    def test_progress_bars_are_for_those_who_wait_and_not_for_readers(self):
        bar = "extract:   0%|    | 0/96 [00:00<?, ?img/s]\rextract: 100%|####| 96/96 [00:01<00:00, 90.1img/s]\n"
        outputs = [new_output("stream", name="stderr", text=text) for text in (bar, "a warning\n")]
        page = prepare_notebook(new_notebook(cells=[new_code_cell("extract()", outputs=outputs)]))
        assert [output.text for output in page.cells[0].outputs] == ["a warning\n"]

    def test_a_page_without_a_plot_does_not_load_plotly(self):
        page = prepare_notebook(new_notebook(cells=[new_code_cell("1", outputs=[])]))
        assert "plotly" not in json.dumps(page)


def test_a_short_plan_is_made_once_while_profile_and_options_are_the_same(project, monkeypatch, capsys):
    from argparse import Namespace

    from book.tools import build, plan
    from book.tools.profiles import Profile

    made = []
    monkeypatch.chdir(project)
    monkeypatch.setattr(plan.Plan, "of", lambda profile: made.append(profile.name) or plan.Plan.of)
    monkeypatch.setattr(plan, "needs_confirmation", lambda plans, here: False)
    options = Namespace(executor="local", cores=1, tflops=None)
    for cores in (1, 1, 2, 2):
        assert build.confirmed([Profile("tiny", project)], Namespace(**vars(options) | {"cores": cores}))
    assert len(made) == 2
    write_profile(project, {"a": {"parameters": {"n": 5}}, "b": {}, "c": {}})
    monkeypatch.setattr(plan, "needs_confirmation", lambda plans, here: True)
    monkeypatch.setattr(plan, "show", lambda *_: "the plan")
    for _ in range(2):  # a long one is shown each time
        assert not build.confirmed([Profile("tiny", project)], options)
    assert capsys.readouterr().out.split("\n") == ["the plan", "the plan", ""]
