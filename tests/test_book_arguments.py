"""Numbers on the tools' command lines: a wrong one is named with its value, and nothing is begun."""

import socket

import pytest

from book.tools import build, live, plan, run_notebook, serve

WRONG = ["abc", "0", "-1", "", "1e400", "nan", "8000; touch x"]
NUMBERS = [
    *((tool, name) for tool in (build, plan) for name in ("--cores", "--tflops")),
    (build, "--jobs"),
    (run_notebook, "--threads"),
    (live, "--port"),
    (serve, "--port"),
]


@pytest.mark.parametrize("text", WRONG)
@pytest.mark.parametrize(("tool", "name"), NUMBERS, ids=lambda x: getattr(x, "__name__", x))
def test_a_wrong_number_is_named(tool, name, text, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["tool", *(["a"] if tool is run_notebook else []), f"{name}={text}"])
    with pytest.raises(SystemExit) as ended:
        tool.main()
    assert ended.value.code == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert f"error: argument {name}: must be a " in said
    assert repr(text) in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("html", ["/", ".", "..", "~", ""])
def test_a_folder_that_holds_more_than_a_book_is_refused_before_anything_is_begun(
    html, root, monkeypatch, capsys, tmp_path
):
    for name in ("profiles", "notebooks"):
        (tmp_path / name).symlink_to(root / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path.parent))
    monkeypatch.setattr("sys.argv", ["build", f"--html={html}", "--profile=smoke"])
    assert build.main() == 1
    assert capsys.readouterr().err.startswith(f"error: HTML={html or '.'} is ")
    assert sorted(path.name for path in (tmp_path / "build").iterdir()) == [".lock"]


def test_a_taken_port_is_not_announced(tmp_path, monkeypatch, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setattr("sys.argv", ["serve", f"--html={tmp_path}", f"--port={taken.getsockname()[1]}"])
        assert serve.main() == 2
    said = capsys.readouterr()
    assert "cannot be used" in said.err
    assert not said.out


def test_a_folder_without_a_book_is_not_served(tmp_path, monkeypatch, capsys):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setattr("sys.argv", ["serve", f"--html={tmp_path / 'site'}", f"--port={port}"])
    assert serve.main() == 2
    said = capsys.readouterr()
    assert "there is no book in" in said.err
    assert not said.out


def test_the_folder_of_pages_is_one_argument_of_the_renderer_whatever_its_name_begins_with(root):
    assert "--out={HTML:q}" in (root / "Snakefile").read_text()


@pytest.mark.parametrize("tool", [build, live, plan])
def test_too_long_a_name_of_a_profile_is_one_sentence(tool, root, monkeypatch, capsys, tmp_path):
    (tmp_path / "profiles").symlink_to(root / "profiles")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["tool", f"--profile={'a' * 300}"])
    assert tool.main()
    assert "is not a valid profile name" in capsys.readouterr().err
