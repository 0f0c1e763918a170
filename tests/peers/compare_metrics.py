"""How far our seven metrics of ViSAEBench are from the package's own: `python -m tests.peers.compare_metrics FILE`."""

import json
import sys
from pathlib import Path

from safetensors import safe_open

from experiments.metric_study import visaebench_metrics as visaebench

LIMIT = 1e-6


def differences(path: Path) -> dict[str, float]:
    """Absolute difference of each metric, on the arrays that `visaebench_numbers.py` wrote."""
    with safe_open(path, "pt") as file:
        arrays, about = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    values, siblings, ks = (json.loads(about[name]) for name in ("values", "siblings", "ks"))
    x, x_hat, other, other_hat = (arrays[name] for name in ("x", "x_hat", "other", "other_hat"))
    labels, pooled, there = arrays["labels"].numpy(), arrays["codes"].amax(1), arrays["other_codes"].amax(1)
    unexplained = visaebench.fvu(other.flatten(0, 1), other_hat.flatten(0, 1))
    ours = {
        "fvu": visaebench.fvu(x.flatten(0, 1), x_hat.flatten(0, 1)),
        "preservation": visaebench.preservation(x, x_hat, labels),
        "sparse probing": visaebench.sparse_probing(pooled.numpy(), labels, ks),
        "top monosemanticity": visaebench.top_monosemanticity(pooled, arrays["embeddings"]),
        "localisation": visaebench.localisation(arrays["codes"], (3, 3), 8),
        "absorption": visaebench.absorption(pooled.numpy(), labels, siblings),
        "cross-domain": visaebench.cross_domain(pooled.numpy(), there.numpy(), labels, unexplained),
    }
    return {name: abs(ours[name] - value) for name, value in values.items()}


if __name__ == "__main__":
    found = differences(Path(sys.argv[1]))
    for name, gap in found.items():
        print(f"visaebench {name:20} {gap:.1e}")
    sys.exit(max(found.values()) > LIMIT)
