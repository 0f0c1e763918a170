"""Work shared by several processes: on one machine with several GPUs, or on several machines with a shared folder.

The processes are started by accelerate (or torchrun): `accelerate launch script.py` in a shell, `launch` in a notebook.
`lib.extract` and `lib.train_sae` then share the work between them, and the script reads the same as for one process:

    images, encoder = load_images("imagenet:train"), load_encoder("hf:openai/clip-vit-large-patch14-336")
    store = extract(encoder, images, ["22.resid_post"], out=folder)["22.resid_post"]   # each rank fills its shards
    saes = train_sae(store, configs, out=folders)                                      # each rank trains its configs

Results pass through the folders, which every machine must see under the same path; the processes exchange only short
messages, over gloo. A single process does none of this.
"""

import os
import signal
import socket
from collections.abc import Callable
from datetime import timedelta
from functools import cache
from typing import TypeVar

import torch
import torch.distributed as dist

Result = TypeVar("Result")
TIMEOUT = timedelta(days=30)  # ranks may wait for the slowest: a rank that died is noticed by its closed connection


def _environment(name: str, default: int) -> int:
    """An integer that the launcher sets in the environment of its processes; `default` without a launcher."""
    return int(os.environ.get(name, default)) if "MASTER_ADDR" in os.environ else default


def rank() -> int:
    """This process's number, 0 where there is only one."""
    return dist.get_rank() if dist.is_initialized() else _environment("RANK", 0)


def world_size() -> int:
    """How many processes share the work, on all machines together."""
    return dist.get_world_size() if dist.is_initialized() else _environment("WORLD_SIZE", 1)


def local_gpu() -> str | None:
    """The GPU of this process, such as "cuda:1"; None on a machine without one."""
    if not torch.cuda.is_available():
        return None
    return f"cuda:{_environment('LOCAL_RANK', 0) % torch.cuda.device_count()}" if world_size() > 1 else "cuda"


def my_share(items: list) -> list:
    """The consecutive part of the items that is this rank's; the parts differ by one in length at most."""
    n, size, me = len(items), world_size(), rank()
    return items[n * me // size : n * (me + 1) // size]


class _AnotherFailed(RuntimeError):
    """Another rank's error, quoted."""


class _Ranks:
    """The process group: results are gathered over gloo; errors are posted in a key-value store that all ranks poll."""

    def __init__(self) -> None:
        if not dist.is_initialized():
            dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
        self.gloo = dist.new_group(backend="gloo", timeout=TIMEOUT)
        self.errors = dist.PrefixStore("lib", dist.distributed_c10d._get_default_store())
        self.call = 0  # number of the `on_all_ranks` call, the same on all ranks

    def stop_if_another_failed(self) -> None:
        if self.errors.check([f"failed-{self.call}"]):
            raise _AnotherFailed(self.errors.get(f"failed-{self.call}").decode())

    def run(self, work: Callable[[], Result]) -> list[Result]:
        self.call += 1
        result, error, sentence = None, None, None
        try:
            result = work()
        except _AnotherFailed as raised:
            error = raised
        except Exception as raised:
            error, sentence = raised, f"process {rank()} failed: {type(raised).__name__}: {raised}"
            self.errors.set(f"failed-{self.call}", sentence)
        outcomes = self._gather((sentence, result))
        if error is not None:
            raise error
        for failure, _ in outcomes:
            if failure is not None:
                raise _AnotherFailed(failure)
        return [result for _, result in outcomes]

    def _gather(self, value: object) -> list:
        """The values of all ranks, in the order of the ranks."""
        gathered: list = [None] * world_size()
        try:
            dist.all_gather_object(gathered, value, group=self.gloo)
        except RuntimeError as error:
            raise RuntimeError(
                "another process died or lost its connection: see its messages, then start again; "
                "finished shards and checkpoints are kept"
            ) from error
        return gathered


_ranks = cache(_Ranks)


def on_all_ranks(work: Callable[[], Result]) -> list[Result]:
    """Do the work on every rank, wait for all, and return all results (picklable), by rank, on each of them.

    An error on one rank is raised there, and on the others as a RuntimeError that names the process and quotes it.
    """
    return [work()] if world_size() == 1 else _ranks().run(work)


def found_on_all_ranks(look: Callable[[], list[Result | None]]) -> list[Result] | None:
    """The results of `look` if none is missing (None) on any rank, so that nothing has to be made; else None."""
    found: list[Result | None] = []

    def finds_all() -> bool:
        found.extend(look())
        return None not in found

    return found if all(on_all_ranks(finds_all)) else None


def on_first_rank(work: Callable[[], Result]) -> Result:
    """Do the work on rank 0 only; every rank waits for it and gets its result."""
    return on_all_ranks(lambda: work() if rank() == 0 else None)[0]


def stop_if_another_failed() -> None:
    """Raise RuntimeError once another rank has failed; called from time to time in long work of `on_all_ranks`."""
    if world_size() > 1:
        _ranks().stop_if_another_failed()


def same_on_all_ranks(value: Result, what: str) -> Result:
    """Return `value`, which must be equal on all ranks. Raises ValueError on every rank where it differs."""
    if any(other != value for other in on_all_ranks(lambda: value)):
        raise ValueError(f"the processes do not agree on {what}: start all of them with the same script and files")
    return value


def launch(function: Callable, *args: object, processes: int, **options: object) -> None:
    """Run `function(*args)` in several processes of this machine, from a notebook, through accelerate's launcher.

    Nothing is returned: read what was made by calling `extract` or `train_sae` again, which find it finished.
    processes: one a GPU; without a GPU each computes on one core. options: further ones of
    `accelerate.notebook_launcher`, such as `num_nodes`, `node_rank`, `master_addr` and `use_port` for several machines.
    The processes are forks of the notebook's, so no GPU may have been used before. Raises ImportError without
    accelerate, RuntimeError with the first error of a process; the other processes are then terminated.
    """
    if processes == 1 and not options:
        function(*args)
        return
    try:
        from accelerate import notebook_launcher
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    except ImportError as error:
        raise ImportError("several processes need accelerate: pip install accelerate") from error
    if torch.cuda.is_initialized():
        raise RuntimeError("this notebook has used a GPU already: restart it, and load models within the function")
    options = {"use_port": str(_free_port()), **options}
    try:
        notebook_launcher(_in_a_fork, args=(function, args), num_processes=processes, **options)
    except ChildFailedError as error:
        failed, failure = error.get_first_failure()
        said = failure.message if isinstance(failure.message, str) else failure.message["message"]  # a signal, an error
        quoted = said.strip().removeprefix(f"{_AnotherFailed.__name__}: ")  # of the process that failed before this one
        raise RuntimeError(quoted if quoted != said.strip() else f"process {failed} failed: {quoted}") from None


def _in_a_fork(function: Callable, args: tuple) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # so that the launcher can end a process that waits for another
    torch.set_num_threads(1)  # a fork lacks the threads of the notebook's process: OpenMP would wait for them
    function(*args)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]
