"""Our own dictionaries in SAELens' format, for SAELens to read: `python -m tests.peers.exports FOLDER`."""

import sys
from pathlib import Path

import torch

from lib.sae.model import SAE, SAEConfig
from peers import export_saelens

D, F, K = 16, 48, 4
EXAMPLES = {
    "relu": {"kind": "relu"},
    "topk": {"kind": "topk", "input_norm": "unit_rms"},
    "batchtopk": {"kind": "batchtopk"},
    "batchtopk_per_feature": {"kind": "batchtopk", "threshold": "per_feature"},
    "matryoshka": {"kind": "matryoshka"},
    "jumprelu": {"kind": "jumprelu", "input_norm": "layer_norm"},
}


def example(**fields) -> SAE:
    """A dictionary with no weight at its initial value and a positive threshold, the same each time."""
    sae = SAE(SAEConfig(width=F, k=K, **fields), D)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
        if sae.config.kind not in ("relu", "topk"):
            sae.threshold.copy_(torch.rand(sae.threshold.shape, generator=generator) + 0.3)
    return sae


if __name__ == "__main__":
    for name, fields in EXAMPLES.items():
        export_saelens(example(**fields), Path(sys.argv[1], name))
