"""The emulated device computes as the CPU does and refuses what CUDA refuses: planted faults are caught."""

import multiprocessing

import numpy as np
import pytest
import torch

from tests.cuda.both import EMULATED

pytestmark = [
    pytest.mark.usefixtures("cuda"),
    pytest.mark.skipif(not EMULATED, reason="the device under test is the emulated one"),
]


def on_cuda(*shape: int) -> torch.Tensor:
    return torch.arange(float(np.prod(shape)), device="cuda").view(shape)


def in_a_fork() -> None:
    on_cuda(2)


FAULTS = {
    "mixed devices": lambda: on_cuda(2) + torch.ones(2),
    "mixed devices in a list": lambda: torch.cat([on_cuda(2), torch.ones(2)]),
    "mixed devices in place": lambda: torch.ones(2).add_(on_cuda(2)),
    "a mask of another device": lambda: torch.where(torch.tensor([True, False]), on_cuda(2), 0),
    "a result of another device": lambda: torch.add(on_cuda(2), 1, out=torch.empty(2)),
    "CPU rows picked by CUDA indices": lambda: torch.ones(2)[on_cuda(2).long()],
    "numpy of CUDA": lambda: on_cuda(2).numpy(),
    "numpy by asarray": lambda: np.asarray(on_cuda(2)),
    "a generator of the CPU": lambda: torch.randn(2, device="cuda", generator=torch.Generator()),
    "a product of integers": lambda: on_cuda(2, 2).long() @ on_cuda(2, 2).long(),
    "a linear layer of the CPU": lambda: torch.nn.Linear(2, 1)(on_cuda(1, 2)),
    "a layer moved too late": lambda: torch.nn.functional.linear(torch.ones(1, 2), on_cuda(1, 2)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_it_refuses(fault):
    with pytest.raises((RuntimeError, TypeError), match=r"same device|cuda|generator|numpy"):
        FAULTS[fault]()


def test_it_refuses_the_types_that_it_is_told_to(monkeypatch):
    monkeypatch.setattr("tests.emulated_cuda.REFUSED", {torch.float64})
    for make in (lambda: on_cuda(2).double(), lambda: torch.ones(2, device="cuda", dtype=torch.double)):
        with pytest.raises(TypeError, match=r"makes .*float64.* on a device that has none"):
            make()
    with pytest.raises(TypeError, match="on a device that has none"):
        torch.ones(2, dtype=torch.double).to("cuda")
    assert (on_cuda(2) * 0.5).dtype == torch.float32


def test_it_refuses_to_work_in_a_forked_process():
    context = multiprocessing.get_context("fork")
    child = context.Process(target=in_a_fork)
    child.start()
    child.join()
    assert child.exitcode == 1


def test_a_stream_may_not_read_what_another_has_not_finished():
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        x = on_cuda(2) * 2
    with pytest.raises(RuntimeError, match="has to wait"):
        x + 1
    torch.cuda.current_stream().wait_stream(side)
    assert (x + 1).tolist() == [1.0, 3.0]


def test_a_late_copy_is_nan_until_somebody_waits():
    copy = on_cuda(2).to("cpu", non_blocking=True)
    assert copy.isnan().all()
    torch.cuda.synchronize()
    assert copy.tolist() == [0.0, 1.0]


def test_it_lets_through_what_cuda_lets_through():
    x = on_cuda(3)
    assert (x + torch.tensor(1.0)).tolist() == [1.0, 2.0, 3.0]  # a number, as a tensor of no dimensions
    assert x[torch.tensor([2, 0])].tolist() == [2.0, 0.0]  # CPU indices of a CUDA tensor
    assert x.new_zeros(2).device.type == torch.zeros(2, device="cuda").device.type == "cuda"
    assert f"{x.sum():.1f}" == "3.0"
    x[:] = torch.ones(3)  # a copy
    assert x.cpu().numpy().tolist() == [1.0, 1.0, 1.0]


def test_gradients_are_those_of_the_cpu():
    def gradients(device: str) -> list[torch.Tensor]:
        torch.manual_seed(0)
        model = torch.nn.Sequential(
            torch.nn.Linear(4, 5), torch.nn.LayerNorm(5), torch.nn.GELU(), torch.nn.Linear(5, 2)
        )
        x = torch.linspace(-1, 1, 12).view(3, 4).to(device).requires_grad_()
        loss = model.to(device)(x).square().mean()
        loss.backward()
        return [x.grad.cpu(), *(parameter.grad.cpu() for parameter in model.parameters())]

    for here, there in zip(gradients("cpu"), gradients("cuda"), strict=True):
        torch.testing.assert_close(here, there)


def test_memory_is_shared_by_views_as_on_cuda():
    x = on_cuda(2, 3)
    x[0].zero_()
    x.t()[2, 1] = 9.0
    assert x.tolist() == [[0.0, 0.0, 0.0], [3.0, 4.0, 9.0]]


def test_a_device_that_was_left_is_gone():
    from tests.emulated_cuda import emulated_cuda

    with emulated_cuda():
        assert torch.ones(1, device="cuda").is_cuda
    assert torch.ones(1, device="cuda").is_cuda  # the one around this test is still there
