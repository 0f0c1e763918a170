"""The seven metrics by the package visaebench itself, on arrays that ours are then compared on.

Run by `run.sh` in the environment of the peers: `python tests/peers/visaebench_numbers.py FILE`; FILE holds arrays,
and in its metadata each metric's number.
"""

import json
import sys
import types
from pathlib import Path

import torch
from safetensors.torch import save_file

N, H, W, D, F, CLASSES = 48, 3, 3, 8, 16, 6


class Dictionary:
    """What the package asks of an SAE: a linear encoder with a ReLU, and its transpose."""

    def __init__(self, generator: torch.Generator):
        self.weight = torch.randn(D, F, generator=generator) / 2

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return (x @ self.weight - 0.4).relu()

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        return codes @ self.weight.T / 2


class Backbone:
    """An evaluator whose "pictures" are their own embeddings."""

    def extract_activations(self, images: list[torch.Tensor], layer: int = -1) -> torch.Tensor:
        return torch.stack(images)[:, None]


def main(path: Path) -> None:
    sys.modules.setdefault("datasets", types.ModuleType("datasets"))
    from visaebench.metrics.concept_detection.cross_domain import CrossDomainGeneralization
    from visaebench.metrics.concept_detection.monosemanticity import MonosemanticityScore
    from visaebench.metrics.concept_detection.sparse_probing import SparseProbing
    from visaebench.metrics.disentanglement.absorption import FeatureAbsorption
    from visaebench.metrics.reconstruction.downstream import DownstreamPreservation
    from visaebench.metrics.reconstruction.fvu import FVU
    from visaebench.metrics.spatial_coherence.localization import FeatureLocalization
    from visaebench.version import __version__

    generator = torch.Generator().manual_seed(0)
    sae, labels = Dictionary(generator), torch.arange(N) % CLASSES
    centres = torch.randn(2, CLASSES, D, generator=generator)
    x, other = (
        (centres[i, labels][:, None] + torch.randn(N, H * W, D, generator=generator)).cumsum(1) / 4 for i in range(2)
    )
    embeddings = torch.nn.functional.normalize(torch.randn(N, 5, generator=generator) + 0.3, dim=1)
    siblings = {"first": [0, 1, 2], "second": [3, 4, 5]}
    groups = {name: {"class_indices": classes, "hierarchy_depth": 1} for name, classes in siblings.items()}
    ks, of = [1, 5, 20], labels.numpy()
    with torch.no_grad():
        numbers = {
            "fvu": FVU().compute(sae, x.flatten(0, 1), device="cpu"),
            "preservation": DownstreamPreservation().compute(sae, x, device="cpu", labels=of),
            "sparse probing": SparseProbing(k_values=ks).compute(sae, x, device="cpu", labels=of),
            "top monosemanticity": MonosemanticityScore().compute(
                sae, x, device="cpu", images=list(embeddings), evaluator_backbone=Backbone()
            ),
            "localisation": FeatureLocalization(grid_size=(H, W), min_images_per_feature=8).compute(
                sae, x, device="cpu"
            ),
            "absorption": FeatureAbsorption().compute(sae, x, device="cpu", labels=of, sibling_groups=groups),
            "cross-domain": CrossDomainGeneralization().compute(
                sae, x, device="cpu", ood_datasets={"other": {"activations": other, "labels": of}}
            ),
        }
        codes, other_codes = sae.encode(x), sae.encode(other)
        arrays = {"x": x, "codes": codes, "x_hat": sae.decode(codes), "embeddings": embeddings, "labels": labels}
        arrays |= {"other": other, "other_codes": other_codes, "other_hat": sae.decode(other_codes)}
    values = {name: found.value for name, found in numbers.items()}
    about = {"version": __version__, "values": json.dumps(values), "siblings": json.dumps(siblings)}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: array.contiguous() for name, array in arrays.items()}, path, about | {"ks": json.dumps(ks)})
    print(json.dumps(values))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
