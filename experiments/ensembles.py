"""Several SAEs as one dictionary: naive bagging and boosting (Gadgil et al. 2025, arXiv 2505.16077).

    x ≈ sum_j a_j SAE_j(x)                          bagging: SAEs that differ by their seeds, a_j = 1 / J
    x ≈ sum_j SAE_j(x - sum_{i < j} SAE_i(x))       boosting: each is trained on the residual

Either way the reconstruction is linear in the members' codes, so an ensemble is a dictionary of all members' features
(ibid., proposition 1): it encodes, decodes and is steered as an SAE is.
"""

import hashlib
import json
import os
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from experiments.sae_folders import SAEStore
from lib.devices import bring, to_cpu
from lib.sae.model import SAE, SAEConfig
from lib.sae.selection import Codes
from lib.sae.training import train_sae
from lib.sae.training_data import Activations, as_activations
from storage import check_files, checked_meta, digest_of, replacing, spec_hash, write_meta
from storage.files import quoted, read_json


class Ensemble(nn.Module):
    """J SAEs of one width d; features in the order of the members; on the device of member 0.

    Raises ValueError where there is no member, or members of different widths, or one that normalises its inputs.
    """

    share: float
    """Weight a_j of a member's reconstruction in the sum."""

    def __init__(self, members: Sequence[SAE]) -> None:
        super().__init__()
        if not members or len({sae.d for sae in members}) > 1:
            raise ValueError("An ensemble needs at least one SAE, and all of them must read one width.")
        if any(sae.config.input_norm != "none" for sae in members):
            raise ValueError("An SAE that normalises each input cannot be one of an ensemble, whose decoders add up.")
        self.members, self.d = nn.ModuleList(members), members[0].d
        self.n_features = sum(sae.n_features for sae in members)
        self.origin = members[0].origin
        self._joined: tuple[list[tuple], Tensor] | None = None

    @property
    def W_dec(self) -> Tensor:
        """(F, d), the members' decoder rows, detached; concatenated again only after one has changed."""
        rows = [sae.W_dec for sae in self.members]
        state = [(id(row), row._version, row.device, row.dtype) for row in rows]
        if self._joined is None or self._joined[0] != state:
            self._joined = state, torch.cat([bring(row.detach(), rows[0]) for row in rows])
        return self._joined[1]

    @property
    def b_dec(self) -> Tensor:
        """(d,), the weighted sum of the members' biases."""
        return self.share * sum(bring(sae.b_dec, self) for sae in self.members)

    def encode(self, x: Tensor | np.ndarray) -> Tensor:
        """Codes (..., F) of x (..., d), weighted by `share`."""
        return torch.cat([self.share * bring(codes, self) for codes in self._each(x, SAE.encode)], dim=-1)

    @torch.no_grad()
    def encode_sparse(self, x: Tensor | np.ndarray) -> Tensor:
        """Codes of x (rows, d) as a torch sparse CSR tensor (rows, F)."""
        parts, start = [], 0
        for codes, sae in zip(self._each(x, SAE.encode_sparse), self.members, strict=True):
            codes = bring(codes, self)
            rows = torch.arange(len(codes), device=codes.device).repeat_interleave(codes.crow_indices().diff())
            parts.append((rows * self.n_features + codes.col_indices() + start, self.share * codes.values()))
            start += sae.n_features
        flat, order = torch.cat([flat for flat, _ in parts]).sort()
        values = torch.cat([values for _, values in parts])[order]
        return Codes.from_flat(flat, values, len(x), self.n_features).to_csr(self.n_features)

    def decode(self, codes: Tensor | np.ndarray, x: Tensor | None = None) -> Tensor:
        """Reconstruction (..., d) of codes (..., F), dense or sparse CSR (rows, F)."""
        codes = bring(codes, self, self.b_dec.dtype)
        if codes.shape[-1:] != (self.n_features,):
            raise ValueError(
                f"This ensemble has {self.n_features} features; the codes have shape {tuple(codes.shape)}."
            )
        return codes @ self.W_dec + self.b_dec

    def forward(self, x: Tensor | np.ndarray) -> Tensor:
        """Reconstruction (..., d), in the units of x."""
        return self.decode(self.encode(x))

    def save(self, folder: str | os.PathLike) -> None:
        """Write `ensemble.json` and each member into a folder of its own: config.json and model.safetensors."""
        folder = Path(folder).expanduser()
        for i, sae in enumerate(self.members):
            sae.save(folder / str(i))
        with replacing(folder / "ensemble.json") as temporary:
            about = {"kind": type(self).__name__.lower(), "members": len(self.members)}
            temporary.write_text(json.dumps(about) + "\n", encoding="utf-8")
            digest = digest_of(temporary)
        write_meta(folder, {"digests": {"ensemble.json": digest}})

    @staticmethod
    def load(folder: str | os.PathLike, device: str | torch.device = "auto") -> "Ensemble":
        """Read what `save` wrote; raises FileNotFoundError or ValueError in one sentence."""
        folder = Path(folder).expanduser()
        about = folder / "ensemble.json"
        if not about.exists():
            raise FileNotFoundError(f"No ensemble in {folder}: ensemble.json is missing.")
        check_files(folder, checked_meta(folder) or {})
        kept = read_json(about)
        kind, n = kept.get("kind"), kept.get("members")
        if not isinstance(kind, str) or kind not in ENSEMBLES:
            raise ValueError(f"Unknown ensemble {quoted(kind)} in {about}; known are {', '.join(ENSEMBLES)}.")
        if type(n) is not int or n < 1:
            raise ValueError(f"{about} says that the ensemble has {quoted(n)} members.")
        return ENSEMBLES[kind]([SAE.load(folder / str(i), device) for i in range(n)])


class Bagging(Ensemble):
    """Naive bagging: members read the same x, and their reconstructions are averaged."""

    def __init__(self, members: Sequence[SAE]) -> None:
        super().__init__(members)
        self.share = 1 / len(members)

    def _each(self, x: Tensor | np.ndarray, encode) -> list[Tensor]:
        return [encode(sae, x) for sae in self.members]


class Boosting(Ensemble):
    """Boosting: each member reads the residual of x after the members before it, and all are added."""

    share = 1.0

    def _each(self, x: Tensor | np.ndarray, encode) -> list[Tensor]:
        found = []
        for sae in self.members:
            found.append(encode(sae, x))
            decoded = sae.decode(found[-1])
            x = bring(x, decoded, decoded.dtype) - decoded
        return found


ENSEMBLES: dict[str, type[Ensemble]] = {"bagging": Bagging, "boosting": Boosting}
"""By the name in `ensemble.json`."""


class Residuals:
    """A store's activations minus an ensemble's reconstructions, computed as they are read, to train on."""

    def __init__(self, store: Activations, ensemble: Ensemble) -> None:
        self.store, self.ensemble, self.d = store, ensemble, store.d
        weights = hashlib.sha256()
        for tensor in ensemble.state_dict().values():
            weights.update(to_cpu(tensor).contiguous().numpy().tobytes())
        self.meta = {
            **store.meta,
            "hash": spec_hash({"residual_of": store.meta["hash"], "weights": weights.hexdigest()}),
        }

    def __len__(self) -> int:
        return len(self.store)

    @torch.no_grad()
    def batches(self, batch_size: int, seed: int = 0, start: int = 0) -> Generator[Tensor, None, None]:
        """The store's batches, less their reconstructions."""
        with closing(self.store.batches(batch_size, seed=seed, start=start)) as source:
            for x in source:
                x_hat = self.ensemble(x)
                yield bring(x, x_hat, x_hat.dtype) - x_hat


def train_boosting(
    store: Activations, config: SAEConfig, n: int, out: Sequence[str | os.PathLike] | None = None, **options
) -> Boosting:
    """Train n SAEs of one config with rising seeds, each on the residual of those before it.

    out: a folder for each. Raises ValueError for n below 1 and for another number of folders.
    """
    folders = [None] * n if out is None else list(out)
    if n < 1 or len(folders) != n:
        raise ValueError(f"Boosting takes at least one SAE and a folder for each; got n = {n}, {len(folders)} folders.")
    members, store = [], as_activations(store)
    for i, folder in enumerate(folders):
        left = Residuals(store, Boosting(members)) if members else store
        members.append(train_sae(left, replace(config, seed=config.seed + i), out=folder, **options))
    return Boosting(members)


def ensembles_and_baselines(
    place: SAEStore, store: Activations, config: SAEConfig, members: int, firsts: Sequence[int]
) -> dict[tuple[str, int], SAE | Ensemble]:
    """By (name, run): one member, a single SAE of the ensembles' size, one with as many active latents, and both
    ensembles of so many members; run i begins with seed `firsts[i]`, and no two runs share a seed.
    """
    seeds = [first + i for first in firsts for i in range(members)]
    configs = {seed: replace(config, seed=seed, data_seed=seed) for seed in seeds}
    single = place.trained(store, configs, progress=False)
    size = {"expansion": config.expansion * members}
    baselines = {"expanded": size, "expanded, as many active": size | {"k": config.k * members}}
    wide = {
        (name, run): replace(configs[first], **changes)
        for name, changes in baselines.items()
        for run, first in enumerate(firsts)
    }
    found = {("one member", run): single[first] for run, first in enumerate(firsts)}
    found |= place.trained(store, wide, progress=False)
    for run, first in enumerate(firsts):
        found["bagging", run] = Bagging([single[first + i] for i in range(members)])
        folder = place.folder(configs[first])
        folders = [folder, *(folder.with_name(f"{folder.name}-boosts-{i}") for i in range(1, members))]
        found["boosting", run] = train_boosting(store, configs[first], members, out=folders, progress=False)
    return found
