"""Kill the build, and the run of one notebook, again and again at times drawn by a seed."""

import random
import signal
import time

import nbformat
import pytest

from tests.killed_builds import beside, killed, killed_and_finished, started
from tests.small_book import STUBS, lay_out, notebook, tool, write_stub

pytestmark = pytest.mark.long
KILLS = 50
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


@pytest.fixture
def fresh(tmp_path, root):
    """Makes small projects with the real runner, one after the other."""

    def make(name: str):
        project = tmp_path / name
        project.mkdir()
        lay_out(project, root)
        for tool_name in set(STUBS) - {"run_notebook"}:
            write_stub(project, tool_name)
        return project

    return make


@pytest.mark.parametrize("kill", range(KILLS))
def test_a_killed_build_leaves_nothing_at_work_and_is_finished_by_the_next(fresh, kill, record_property):
    drawn = random.Random(kill)
    in_time = killed_and_finished(fresh("project"), drawn.choice(SIGNALS), after=drawn.uniform(0, 8))
    record_property("kills of the build" if in_time else "builds that ended before they were killed", 1)


@pytest.mark.parametrize("kill", range(KILLS))
def test_a_killed_notebook_leaves_no_result_or_a_whole_one_and_runs_again(fresh, kill, record_property):
    project, drawn = fresh("project"), random.Random(kill)
    nbformat.write(notebook("import time\ntime.sleep(1)", "print(n)"), project / "notebooks" / "a.ipynb")
    before = beside(project)
    in_time = killed(started(project, "book.tools.run_notebook", "a"), drawn.choice(SIGNALS), drawn.uniform(2, 9))
    executed = project / "build/tiny/notebooks/a.ipynb"
    if executed.exists():
        assert nbformat.read(executed, as_version=4).cells[-1].outputs[0].text == "3\n"
    end = time.monotonic() + 30  # a kernel looks every second whether its parent is there
    while beside(project) != before:
        assert time.monotonic() < end, "a kernel outlives the process that ran it"
        time.sleep(0.2)
    again = tool(project, "book.tools.run_notebook", "a")
    assert again.returncode == 0, again.stderr
    assert nbformat.read(executed, as_version=4).cells[-1].outputs[0].text == "3\n"
    record_property("kills of a notebook" if in_time else "notebooks that ended before they were killed", 1)
