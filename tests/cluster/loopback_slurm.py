"""A real Slurm of one node on this machine's loopback, for as long as a block runs.

Needs root and Debian's `slurm-wlm` and `munge`; no systemd, no cgroups and no accounting database. All of its state is
in one folder, its ports are its own, and only the daemons that it started are stopped. Jobs look for the configuration
where every cluster has it, so a link to it is in /etc/slurm meanwhile.
"""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil

SYSTEM_CONFIGURATION = Path("/etc/slurm/slurm.conf")
CONTROLLER_PORT, NODE_PORT = 26817, 26818
CONFIGURATION = """
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/jobs.txt
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory_mb} State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing_programs() -> list[str]:
    """What has to be installed first."""
    return [
        name for name in ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue") if shutil.which(name) is None
    ]


@contextmanager
def loopback_slurm(folder: Path) -> Iterator[None]:
    """Start munge, controller and node; stop them in the end. Raises RuntimeError where a Slurm is set up already."""
    if SYSTEM_CONFIGURATION.exists():
        raise RuntimeError(f"a Slurm is set up here ({SYSTEM_CONFIGURATION}): this would get in its way")
    folder.mkdir(mode=0o755)  # munge refuses a socket in a folder that others may write to
    for name in ("state", "spool"):
        (folder / name).mkdir()
    configuration = folder / "slurm.conf"
    configuration.write_text(
        CONFIGURATION.format(
            folder=folder,
            host=socket.gethostname().split(".")[0],
            cpus=os.cpu_count(),
            memory_mb=int(psutil.virtual_memory().total / 2**20 * 0.8),
            controller_port=CONTROLLER_PORT,
            node_port=NODE_PORT,
        )
    )
    with ExitStack() as stack:
        stack.enter_context(_linked(SYSTEM_CONFIGURATION, configuration))
        for command in (_munged(folder), ["slurmctld", "-D", "-c"], ["slurmd", "-D", "-c"]):
            stack.enter_context(_daemon(command, folder / f"{command[0]}.out"))
            time.sleep(1)
        _wait_until_idle(folder)
        yield


@contextmanager
def _linked(link: Path, target: Path) -> Iterator[None]:
    link.parent.mkdir(exist_ok=True)
    link.unlink(missing_ok=True)  # one that leads nowhere, of a run that was killed
    link.symlink_to(target)
    try:
        yield
    finally:
        link.unlink()


def _munged(folder: Path) -> list[str]:
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    files = {"key-file": key, "socket": folder / "munge.socket", "pid-file": folder / "munge.pid"}
    files |= {"log-file": folder / "munge.log", "seed-file": folder / "munge.seed"}
    return ["munged", "--foreground", "--force", *(f"--{option}={path}" for option, path in files.items())]


@contextmanager
def _daemon(command: list[str], output: Path) -> Iterator[None]:
    with output.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_idle(folder: Path, patience: float = 60.0) -> None:
    end = time.monotonic() + patience
    while time.monotonic() < end:
        shown = subprocess.run(["sinfo", "--noheader", "--format=%T"], capture_output=True, text=True)
        state = shown.stdout.strip()
        if state == "idle":
            return
        time.sleep(1)
    logs = "\n".join(f"== {log.name}\n{log.read_text()[-2000:]}" for log in sorted(folder.glob("*.log")))
    raise RuntimeError(f"the node did not become idle within {patience:.0f} s (state {state!r})\n{logs}")
