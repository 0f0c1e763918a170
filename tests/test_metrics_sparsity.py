"""L0, dead share and density, sparse or dense, whole or in batches, per kind of token."""

import pytest
import torch

from lib.metrics import Sparsity, sparsity

CODES = torch.tensor([[0.0, 2.0, 0.0, 1.0], [0.0, 1.0, 0.0, 0.0], [0.0, 3.0, 0.5, 0.0]])
KINDS = ["cls", "spatial", "spatial"]


@pytest.mark.parametrize("layout", [CODES, CODES.to_sparse_csr()], ids=["dense", "CSR"])
def test_figures_of_a_small_example(layout):
    figures = sparsity(layout)
    assert figures["l0"] == pytest.approx(5 / 3)
    assert figures["dead"] == 0.25
    torch.testing.assert_close(figures["density"], torch.tensor([0, 1, 1 / 3, 1 / 3]))
    assert "by_kind" not in figures


@pytest.mark.parametrize("layout", [CODES, CODES.to_sparse_csr()], ids=["dense", "CSR"])
def test_each_kind_of_token_is_measured_by_itself(layout):
    kinds = sparsity(layout, KINDS)["by_kind"]
    assert (kinds["cls"]["l0"], kinds["cls"]["dead"], kinds["cls"]["rows"]) == (2, 0.5, 1)
    assert (kinds["spatial"]["l0"], kinds["spatial"]["dead"], kinds["spatial"]["rows"]) == (1.5, 0.5, 2)
    torch.testing.assert_close(kinds["spatial"]["density"], torch.tensor([0, 1, 0.5, 0]))


def test_batches_give_the_same_as_the_whole():
    meter = Sparsity().update(CODES[:1].to_sparse_csr(), KINDS[:1]).update(CODES[1:], KINDS[1:])
    whole = sparsity(CODES, KINDS)
    assert meter.compute()["l0"] == whole["l0"]
    assert meter.compute()["dead"] == whole["dead"]
    torch.testing.assert_close(meter.compute()["by_kind"], whole["by_kind"])


def test_a_stored_zero_is_not_active():
    codes = torch.sparse_csr_tensor(torch.tensor([0, 2]), torch.tensor([0, 1]), torch.tensor([0.0, 1.0]), (1, 2))
    assert sparsity(codes)["l0"] == 1


def test_kinds_of_other_rows_are_an_error():
    with pytest.raises(ValueError, match="each of the 3 rows"):
        sparsity(CODES, ["cls"])


def test_codes_of_another_width_are_an_error():
    with pytest.raises(ValueError, match="features"):
        Sparsity().update(CODES).update(torch.ones(2, 7))


def test_no_rows_are_an_error():
    with pytest.raises(ValueError, match="no codes"):
        Sparsity().compute()
