"""What `make live` serves of the panel's notebook."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from papermill.exceptions import PapermillExecutionError

from book.tools.live import NOTEBOOK, live_notebook, prepare
from book.tools.live_server import IDLE, MOST_KERNELS
from book.tools.option_types import check_port
from book.tools.profiles import Profile

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def served():
    figure = {"mystnb": {"figure": {"name": "fig-steering-panel"}}}
    cells = [
        new_markdown_cell("# A chapter"),
        new_code_cell("steps: int = 1", metadata={"tags": ["parameters"]}),
        new_code_cell("print(steps)"),
        new_code_cell("panel", metadata=figure),
        new_code_cell("plot()"),
    ]
    return live_notebook(new_notebook(cells=cells), {"steps": 7}).cells


def test_it_ends_with_the_panel_and_shows_nothing_else(served):
    assert served[-1].source == "panel"
    assert all(cell.source.startswith("%%capture\n") for cell in served[1:-1])
    assert [cell.cell_type for cell in served].count("markdown") == 1


def test_its_parameters_follow_the_defaults_and_it_stores_no_answers(served):
    assert served[1].source == "%%capture\nsteps: int = 1"
    assert "steps = 7" in served[2].source
    assert "stored = [0, 0, 0]" in served[2].source


def test_the_chapter_has_a_panel_to_serve():
    source = nbformat.read(ROOT / "notebooks" / f"{NOTEBOOK}.ipynb", as_version=4)
    panel = live_notebook(source, {}).cells[-1].source
    assert "SteeringPanel(" in panel
    assert "print(" not in panel


@pytest.mark.parametrize("value", ['"); raise SystemExit("', "'''\nraise SystemExit\n'''", "{x}\\", [{'"': '\n"'}]])
def test_a_value_of_a_profile_is_data_whatever_it_holds(value):
    cells = [
        new_code_cell("steps: int = 1", metadata={"tags": ["parameters"]}),
        new_code_cell("panel", metadata={"mystnb": {"figure": {"name": "fig-steering-panel"}}}),
    ]
    served = live_notebook(new_notebook(cells=cells), {"given": value})
    found = {}
    exec(served.cells[2].source.removeprefix("%%capture\n"), found)
    assert found["given"] == value


def test_what_fails_before_the_panel_is_told_though_its_cell_is_quiet(tmp_path):
    cells = [
        new_code_cell('profile_dir: str = "x"', metadata={"tags": ["parameters"]}),
        new_code_cell("raise ValueError('the reason')"),
        new_code_cell("panel", metadata={"mystnb": {"figure": {"name": "fig-steering-panel"}}}),
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    for folder in ("notebooks", "profiles"):
        (tmp_path / folder).mkdir()
    nbformat.write(new_notebook(cells=cells, metadata=kernel), tmp_path / "notebooks" / f"{NOTEBOOK}.ipynb")
    (tmp_path / "profiles" / "mine.yaml").write_text(f"notebooks: {{{NOTEBOOK}: {{}}}}")
    with pytest.raises(PapermillExecutionError) as caught:
        prepare(Profile("mine", tmp_path))
    assert (caught.value.ename, caught.value.evalue) == ("ValueError", "the reason")


def test_a_port_that_is_taken_is_refused_before_anything_is_made(tmp_path, root):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"port {port} cannot be used .*: choose another one"):
            check_port(port)
    check_port(port)
    with pytest.raises(ValueError, match="port 70000 cannot be used"):
        check_port(70_000)


SERVE = """
import sys
from book.tools import live_server
live_server.IDLE = int(sys.argv.pop(1))
live_server.LiveServer.launch_instance(argv=sys.argv[1:], config=live_server.settings())
"""


@contextmanager
def serving(folder: Path, root: Path, idle: int) -> Iterator[tuple[int, subprocess.Popen]]:
    """The port of a panel of one cell, served with `make live`'s limits, and its process."""
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(new_notebook(cells=[new_code_cell("1")], metadata=kernel), folder / "panel.ipynb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number = free.getsockname()[1]
    supervised_run = [
        sys.executable,
        "-c",
        "import sys; from book.tools import supervised; supervised.run(sys.argv[1:])",
    ]
    command = [*supervised_run, sys.executable, "-c", SERVE, str(idle), "panel.ipynb", f"--port={number}"]
    environment = os.environ | {"PYTHONPATH": str(root)}
    top = subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.DEVNULL)
    for _ in range(600):
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", number)).close()
            break
        time.sleep(0.1)
    try:
        yield number, top
    finally:
        top.send_signal(signal.SIGTERM)
        top.wait()


@pytest.fixture(scope="module")
def port(tmp_path_factory, root):
    """Of a panel whose kernels stay as long as in `make live`; SIGTERM ends it with all its kernels."""
    with serving(tmp_path_factory.mktemp("live"), root, IDLE) as (number, top):
        yield number
        below = psutil.Process(top.pid).children(recursive=True)
        assert len(below) >= 2 + MOST_KERNELS
    assert not any(one.is_running() for one in below), "SIGTERM leaves Voila or its kernels behind"


def test_kernels_without_a_page_end_by_themselves_and_make_room(tmp_path, root):
    with serving(tmp_path, root, idle=4) as (number, top):
        for _ in range(2):
            assert status(number) == 200
            kernels = [
                one for one in psutil.Process(top.pid).children(recursive=True) if "ipykernel" in str(one.cmdline())
            ]
            assert len(kernels) == 1
            assert not psutil.wait_procs(kernels, timeout=60)[1], "a kernel that nobody uses stays"


def status(port: int, host: str = "localhost", path: str = "/") -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    connection.request("GET", path, headers={"Host": host})
    return connection.getresponse().status


class TestTheServer:
    @pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "192.0.2.1:8000", ""])
    @pytest.mark.parametrize("path", ["/", "/voila/static/main.js", "/api/kernels"])
    def test_a_request_to_another_hosts_name_is_refused(self, port, host, path):
        assert status(port, host, path) in (400, 403)

    def test_a_page_has_a_kernel_and_there_are_few(self, port):
        assert [status(port) for _ in range(MOST_KERNELS)] == [200] * MOST_KERNELS
        assert status(port) == 503
