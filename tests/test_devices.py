"""One contract for devices: what is called on a tensor takes it from anywhere, and figures are on the CPU."""

import inspect
import re

import numpy as np
import pandas as pd
import pytest
import torch

from lib import metrics
from lib.devices import _measuring_device, bring, choose_device, has_float64, home_of, metric, to_cpu, to_numpy


@metric(unknown=("weights",))
def weighted(values: "Tensor", weights: "Tensor | None" = None, power: float = 1.0):  # noqa: F821
    """What the decorator is tried on."""
    return values, weights, power


@pytest.mark.parametrize("kind", [list, tuple, np.array, pd.Series, torch.tensor])
def test_a_metric_takes_what_holds_numbers(kind):
    values, weights, power = weighted(kind([1.0, 2.0]), weights=kind([0.5, 0.5]), power=2.0)
    assert values.tolist() == [1.0, 2.0]
    assert weights.tolist() == [0.5, 0.5]
    assert power == 2.0


def test_a_metric_takes_arrays_that_torch_would_not():
    reversed_view = np.arange(6.0)[::-2]
    reversed_view.flags.writeable = False
    assert weighted(reversed_view)[0].tolist() == [5.0, 3.0, 1.0]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_metric_refuses_what_is_not_finite_and_names_it(bad):
    with pytest.raises(ValueError, match="values holds NaN or infinity, so results from it would be meaningless"):
        weighted(torch.tensor([1.0, bad]))
    with pytest.raises(ValueError, match="values holds NaN"):
        weighted(torch.tensor([[1.0, bad]]).to_sparse_csr())


def test_nan_passes_where_it_means_that_nothing_is_known():
    assert weighted(torch.ones(1), torch.tensor([torch.nan]))[1].isnan().all()
    for unknown in ([1.0, torch.inf], [torch.nan, -torch.inf]):
        with pytest.raises(ValueError, match="weights holds infinity, so results from it"):
            weighted(torch.ones(2), torch.tensor(unknown))
        with pytest.raises(ValueError, match="a sample holds infinity"):
            metrics.bootstrap(lambda x: x.mean(1), torch.tensor(unknown))


def test_figures_carry_no_gradient():
    assert not weighted(torch.ones(2, requires_grad=True))[0].requires_grad


def test_counting_metrics_refuse_nan_in_place_of_counting_it():
    broken = torch.tensor([[1.0, torch.nan]])
    unit, labels = torch.eye(2), torch.tensor([0, 1])
    with pytest.raises(ValueError, match="codes holds NaN"):
        metrics.sparsity(broken)
    with pytest.raises(ValueError, match="embeddings holds NaN"):
        metrics.zero_shot(unit * torch.nan, unit, labels, 1.0)


def test_every_metric_of_tensors_has_the_contract_at_its_door():
    """`bootstrap` brings its samples itself, and those of `mean_interval`; `reconstruction` and `sparsity` pass through
    their classes' `update`."""
    public = {name: getattr(metrics, name) for name in metrics.__all__}
    functions = {name for name, value in public.items() if inspect.isfunction(value)}
    of_tensors = {name for name in functions if "Tensor" in str(inspect.signature(public[name]).parameters)}
    assert {name for name in of_tensors if public[name].__code__ is not weighted.__code__} == {
        "bootstrap",
        "mean_interval",
        "reconstruction",
        "sparsity",
    }


def test_nobody_else_moves_tensors_between_devices(root):
    """Modules move by `.to`, as torch has it; and the writer of shards sends copies that it waits for later."""
    moves = re.compile(r"\.cpu\(\)|\.cuda\(|\.to\([^)]*(device|\"cpu\"|\"cuda)")
    of_modules = re.compile(r"\b(model|sae|heads)\.to\(|SAE\(.*\)\.to\(|non_blocking=True\) for tensor in")
    found = [
        f"{path.relative_to(root)}: {line.strip()}"
        for floor in ("lib", "steering", "peers", "menagerie", "experiments", "widgets")
        for path in (root / floor).rglob("*.py")
        for line in path.read_text().splitlines()
        if path.name != "devices.py" and moves.search(line) and not of_modules.search(line)
    ]
    assert found == []


def test_a_device_without_float64_gets_float32_and_measures_on_the_cpu(monkeypatch):
    monkeypatch.setattr("lib.devices._WITHOUT_FLOAT64", {"meta"})
    exact = np.ones(2)
    assert bring(exact, "meta").dtype == bring(exact, "meta", torch.float64).dtype == torch.float32
    assert bring(exact, "cpu").dtype == torch.float64
    assert bring([1], "meta").dtype == torch.int64
    assert not has_float64(torch.device("meta"))
    assert _measuring_device(torch.ones(2, device="meta")) == torch.device("cpu")


def test_home_is_where_a_module_or_tensor_lies():
    module = torch.nn.Linear(2, 2, device="meta")
    assert home_of(module) == torch.device("meta")
    assert home_of(torch.nn.Identity()) == torch.device("cpu")
    assert bring(torch.ones(2), module, torch.float16).dtype == torch.float16


def test_to_cpu_and_to_numpy_leave_the_graph():
    x = torch.ones(2, requires_grad=True) * 2
    assert not to_cpu(x).requires_grad
    assert to_numpy(x).tolist() == [2.0, 2.0]
    assert to_numpy(["a", "b"]).tolist() == ["a", "b"]


def test_a_device_that_is_none_is_named():
    with pytest.raises(ValueError, match="there is no device 'banana': write auto, cpu, mps, cuda or cuda:0"):
        choose_device("banana")
