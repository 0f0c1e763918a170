"""Where notebooks run: what Snakemake is told of this machine and of a cluster, and what is heard from there."""

import sys
import time

import pytest

from book.tools import executors
from book.tools.build import what_went_wrong
from book.tools.executors import limits_here, on_slurm, on_this_machine, printing_logs


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Puts programs of our own, and no others, where commands are looked for."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def install(**scripts: str) -> None:
        for name, script in scripts.items():
            file = tmp_path / name.replace("_", "-")
            file.write_text(f"#!/bin/sh\n{script}\n")
            file.chmod(0o755)

    return install


def value_after(arguments: list[str], option: str) -> str:
    return arguments[arguments.index(option) + 1]


class TestThisMachine:
    def test_its_gpus_are_shared_out(self, programs):
        programs(nvidia_smi="echo 'GPU 0: one'; echo 'GPU 1: two'")
        assert executors.gpus_here() == 2
        assert "gpu=2" in on_this_machine(limits_here(cores=4))

    def test_without_a_gpu_those_who_want_one_take_turns(self, programs):
        arguments = on_this_machine(limits_here(cores=4))
        assert executors.gpus_here() == 0
        assert "gpu=1" in arguments
        assert value_after(arguments, "--cores") == "4"

    def test_a_driver_without_gpus_has_none(self, programs):
        programs(nvidia_smi="echo 'No devices were found'; exit 6")
        assert executors.gpus_here() == 0


class TestSlurm:
    def test_without_it_one_sentence_says_what_to_do(self, programs):
        with pytest.raises(ValueError, match="run this on a login node"):
            on_slurm(jobs=3)

    def test_a_missing_plug_in_is_named_with_its_remedy(self, programs, monkeypatch):
        programs(sbatch="")
        monkeypatch.setitem(sys.modules, "snakemake_executor_plugin_slurm", None)
        monkeypatch.setattr(executors.importlib.util, "find_spec", lambda name: None)
        with pytest.raises(ValueError, match="pip install"):
            on_slurm(jobs=3)

    @pytest.mark.parametrize(("sacct", "command"), [("exit 0", "sacct"), ("exit 1", "squeue"), (None, "squeue")])
    def test_job_states_come_from_the_accounting_database_where_there_is_one(
        self, programs, monkeypatch, sacct, command
    ):
        programs(sbatch="", **({"sacct": sacct} if sacct else {}))
        monkeypatch.setattr(executors.importlib.util, "find_spec", lambda name: True)
        arguments = on_slurm(jobs=3)
        assert value_after(arguments, "--executor") == "slurm"
        assert value_after(arguments, "--jobs") == "3"
        assert value_after(arguments, "--slurm-status-command") == command


class TestFollowing:
    def test_shows_what_is_written_meanwhile_and_not_what_was_there(self, tmp_path, capsys, monkeypatch):
        monkeypatch.setattr(executors, "POLL", 0.01)
        (tmp_path / "a.log").write_text("10:00:00  a  started yesterday\n")
        with printing_logs([tmp_path]):
            with (tmp_path / "a.log").open("a") as log:
                log.write("10:00:01  a  cell 1/2\nTraceback of no interest\n")
            (tmp_path / "b.log").write_text("10:00:02  b  started\n10:00:03  b  half a li")
        assert capsys.readouterr().out.splitlines() == ["10:00:01  a  cell 1/2", "10:00:02  b  started"]

    def test_shows_a_log_that_begins_anew_from_its_beginning(self, tmp_path, capsys, monkeypatch):
        monkeypatch.setattr(executors, "POLL", 0.01)
        (tmp_path / "a.log").write_text("10:00:00  a  a long line of yesterday\n")
        with printing_logs([tmp_path]):
            (tmp_path / "a.log").write_text("10:00:01  a  new\n")
            time.sleep(0.05)
        assert capsys.readouterr().out.splitlines() == ["10:00:01  a  new"]


class TestWhatWentWrong:
    def test_a_job_of_this_machine_has_said_it_itself(self):
        assert what_went_wrong("... CalledProcessError ...") == ""

    def test_what_a_job_elsewhere_printed_is_shown(self, tmp_path):
        log = tmp_path / "1.log"
        log.write_text("Building DAG\nNotebook a failed in cell [4]\n[Fri Nov 20]\nError in rule notebook:\n  noise\n")
        text = what_went_wrong(f"Error in rule notebook:\n    log: {log} (check log file(s) for error details)\n")
        assert "Notebook a failed in cell [4]" in text
        assert "noise" not in text

    def test_else_the_messages_of_snakemake_are_shown(self):
        assert what_went_wrong("a rule is missing") == "a rule is missing"
