"""Training steps a second against peers and the physical limit, all measured in one run on the same batches.

    peers/bin/python benchmarks/sae_training.py            # see requirements.txt for the environment
    peers/bin/python benchmarks/sae_training.py --d 192 --width 1536 --k 20
    peers/bin/python benchmarks/sae_training.py --device cuda --d 1024 --width 65536 --kinds batchtopk matryoshka topk

One step is all that a trainer does with a batch: forward, backward, projection, clipping, Adam, thresholds and counts
of dead latents. Contestants take turns, round by round, so that a busy moment of the machine meets all of them; a
contestant's time is its median. The limit is the encoder's dense product alone; in float32 every exact method without
screening has to compute it. On a GPU peers run under bfloat16 autocast, as their own training loops do. The last table
compares losses after equal steps on equal batches.
"""

import argparse
import os
import sys
import time
import types
from collections.abc import Callable
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.figures import finish_computing, json_option, write_figures

Step = Callable[[Tensor], object]

UNUSED = {
    *("accelerate", "babe", "cv2", "datasets", "dotenv", "huggingface_hub", "matplotlib", "nltk", "nnsight", "openai"),
    *("overcomplete.visualization", "pandas", "plotly", "schedulefree", "skimage", "timm", "tokenizers", "torchvision"),
    *("transformer_lens", "transformers", "umap", "wandb", "zstandard"),
}


class HookedRootModule(torch.nn.Module):
    """Stands in for TransformerLens' base of SAELens' modules."""

    def setup(self) -> None:
        """No hooks to find."""


class UnusedPackages(MetaPathFinder, Loader):
    """Empty packages for what peers import at the top but do not use to train."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        unused = any(name == package or name.startswith(package + ".") for package in UNUSED)
        return ModuleSpec(name, self, is_package=True) if unused else None

    def create_module(self, spec: ModuleSpec) -> types.ModuleType:
        module = types.ModuleType(spec.name)
        module.__path__ = []
        module.__getattr__ = self._class
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        """Nothing to run."""

    @staticmethod
    def _class(name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in ("HookedRootModule", "HookPoint"):
            return {"HookedRootModule": HookedRootModule, "HookPoint": torch.nn.Identity}[name]
        return type(name, (), {"__class_getitem__": classmethod(lambda cls, item: cls)})


class RandomActivations:
    """Store of a few fixed batches: sums of k of many random directions, so that there is something to learn."""

    def __init__(self, d: int, width: int, k: int, batch_size: int, device: str, n: int = 16) -> None:
        torch.manual_seed(0)
        self.d, self.meta = d, {"hash": "random"}
        directions = torch.nn.functional.normalize(torch.randn(width, d), dim=1)
        self.data = []
        for _ in range(n):
            chosen = torch.randint(width, (batch_size, k))
            strengths = torch.rand(batch_size, k)
            x = torch.nn.functional.embedding_bag(chosen, directions, per_sample_weights=strengths, mode="sum")
            self.data.append((x / x.square().sum(1).mean().sqrt()).to(device))

    def __len__(self) -> int:
        return sum(len(x) for x in self.data)

    def batches(self, batch_size: int, seed: int = 0, start: int = 0):
        """The batches in turn."""
        while True:
            yield self.data[start % len(self.data)]
            start += 1


def ours(store: RandomActivations, args: argparse.Namespace, kind: str, dtype: str, lr: float | None = None) -> Step:
    """This book's trainer, with the full recipe."""
    from lib import SAEConfig
    from lib.sae import training

    fractions = (0.0625, 0.0625, 0.125, 0.25, 0.5) if args.groups == 5 else (0.0625, 0.125, 0.25, 0.5625)
    config = SAEConfig(
        kind=kind,
        width=args.width,
        k=args.k,
        batch_size=args.batch,
        encoder_dtype=dtype,
        lr=lr,
        **({"group_fractions": fractions} if kind == "matryoshka" else {}),
    )
    run = training.Run(config, training.Setup(store, config, args.device), None, None)

    def step(x: Tensor) -> object:
        run.advance(x)
        return run

    return step


def dictionary_learning(store: RandomActivations, args: argparse.Namespace, kind: str, lr: float | None = None) -> Step:
    """saprmarks/dictionary_learning."""
    from dictionary_learning.trainers.batch_top_k import BatchTopKTrainer
    from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKTrainer
    from dictionary_learning.trainers.top_k import TopKTrainer

    trainers = {"topk": TopKTrainer, "batchtopk": BatchTopKTrainer, "matryoshka": MatryoshkaBatchTopKTrainer}
    shares = [0.0625, 0.0625, 0.125, 0.25, 0.5] if args.groups == 5 else [0.0625, 0.125, 0.25, 0.5625]
    trainer = trainers[kind](
        steps=100_000, activation_dim=args.d, dict_size=args.width, k=args.k, layer=0, lm_name="", seed=0,
        device=args.device,
        **({"lr": lr} if lr else {}), **({"group_fractions": shares} if kind == "matryoshka" else {}),
    )  # fmt: skip
    count = iter(range(10**9))
    return lambda x: trainer.update(next(count), x)


def overcomplete(store: RandomActivations, args: argparse.Namespace, kind: str) -> Step:
    """KempnerInstitute/overcomplete: no projection, threshold or count of dead latents."""
    from overcomplete.sae import BatchTopKSAE, TopKSAE, train_sae

    whole_batch = args.k * args.batch
    sae = (
        BatchTopKSAE(args.d, args.width, top_k=whole_batch, device=args.device)
        if kind == "batchtopk"
        else TopKSAE(args.d, args.width, args.k, device=args.device)
    )
    adam = torch.optim.Adam(sae.parameters(), lr=3e-4)

    def loss(x: Tensor, x_hat: Tensor, *_: Tensor) -> Tensor:
        return (x - x_hat).square().mean()

    return lambda x: train_sae(sae, [x], loss, adam, nb_epochs=1, monitoring=0)


def sae_lens(store: RandomActivations, args: argparse.Namespace, kind: str) -> Step:
    """SAELens."""
    from sae_lens.config import SAETrainerConfig
    from sae_lens.saes import batchtopk_sae, matryoshka_batchtopk_sae, topk_sae
    from sae_lens.training.sae_trainer import SAETrainer

    common = {"d_in": args.d, "d_sae": args.width, "k": args.k, "device": args.device}
    if kind == "matryoshka":
        ends = [int(args.width * share) for share in (0.0625, 0.125, 0.25, 0.5, 1)[-args.groups :]]
        config = matryoshka_batchtopk_sae.MatryoshkaBatchTopKTrainingSAEConfig(**common, matryoshka_widths=ends)
        sae = matryoshka_batchtopk_sae.MatryoshkaBatchTopKTrainingSAE(config)
    elif kind == "batchtopk":
        sae = batchtopk_sae.BatchTopKTrainingSAE(batchtopk_sae.BatchTopKTrainingSAEConfig(**common))
    else:
        sae = topk_sae.TopKTrainingSAE(topk_sae.TopKTrainingSAEConfig(**common))
    settings = SAETrainerConfig(
        total_training_samples=10**9, train_batch_size_samples=args.batch, lr_end=3e-5, device=args.device
    )
    return SAETrainer(cfg=settings, sae=sae, data_provider=iter(())).step


def sparsify(store: RandomActivations, args: argparse.Namespace, kind: str) -> Step:
    """EleutherAI/sparsify: TopK only."""
    from sparsify import SparseCoder, SparseCoderConfig

    sae = SparseCoder(args.d, SparseCoderConfig(num_latents=args.width, k=args.k), device=args.device)
    adam = torch.optim.Adam(sae.parameters(), lr=3e-4)

    def step(x: Tensor) -> None:
        sae.set_decoder_norm_to_unit_norm()
        sae(x).fvu.backward()
        sae.remove_gradient_parallel_to_decoder_directions()
        adam.step()
        adam.zero_grad()

    return step


def encoder_product(store: RandomActivations, args: argparse.Namespace, dtype: torch.dtype) -> Step:
    """The limit: one dense product of the batch with the encoder."""
    options = {"dtype": dtype, "device": args.device}
    weight, out = torch.randn(args.d, args.width).to(**options), torch.empty(args.batch, args.width, **options)
    return lambda x: torch.mm(x.to(dtype), weight, out=out)


def contestants(store: RandomActivations, args: argparse.Namespace) -> dict[str, dict[str, Step]]:
    """Steps by kind and name; a peer that is not installed is left out."""
    peers = {
        "dictionary_learning": (dictionary_learning, ("batchtopk", "matryoshka", "topk")),
        "overcomplete": (overcomplete, ("batchtopk", "topk")),
        "SAELens": (sae_lens, ("batchtopk", "matryoshka", "topk")),
        "sparsify": (sparsify, ("topk",)),
    }
    table: dict[str, dict[str, Step]] = {}
    for kind in args.kinds:
        table[kind] = {
            "ours, bfloat16 screening": ours(store, args, kind, "bfloat16"),
            "ours, float32": ours(store, args, kind, "float32"),
        }
        for name, (make, kinds) in peers.items():
            if kind not in kinds:
                continue
            try:
                table[kind][name] = in_autocast(make(store, args, kind), args.device)
            except Exception as error:
                print(f"{name} {kind} left out: {type(error).__name__}: {error}", file=sys.stderr)
    table["limit"] = {
        "encoder's product, float32": encoder_product(store, args, torch.float32),
        "encoder's product, bfloat16": encoder_product(store, args, torch.bfloat16),
    }
    return table


def in_autocast(step: Step, device: str) -> Step:
    """On a GPU the peer's step in mixed precision."""
    if device == "cpu":
        return step

    def autocast(x: Tensor) -> object:
        with torch.autocast(device, torch.bfloat16):
            return step(x)

    return autocast


def measure(table: dict[str, dict[str, Step]], store: RandomActivations, rounds: int) -> dict[tuple[str, str], float]:
    """Median seconds of a step, the contestants taking turns."""
    seconds: dict[tuple[str, str], list[float]] = {}
    for turn in range(rounds + 2):
        for kind, steps in table.items():
            for name, step in steps.items():
                x = store.data[turn % len(store.data)]
                finish_computing()
                started = time.perf_counter()
                step(x)
                finish_computing()
                if turn >= 2:  # the first steps set up
                    seconds.setdefault((kind, name), []).append(time.perf_counter() - started)
    return {key: median(values) for key, values in seconds.items()}


def print_table(seconds: dict[tuple[str, str], float], args: argparse.Namespace) -> None:
    """Samples a second and ratios to ours."""
    where = f"{torch.get_num_threads()} threads" if args.device == "cpu" else torch.cuda.get_device_name()
    print(f"d = {args.d}, F = {args.width}, k = {args.k}, batch {args.batch}, {where}")
    print(f"{'kind':<12}{'trainer':<30}{'samples/s':>11}{'screened ours':>15}{'float32 ours':>14}")
    for (kind, name), own in seconds.items():
        row = f"{kind:<12}{name:<30}{args.batch / own:>11,.0f}"
        for ours_name in ("ours, bfloat16 screening", "ours, float32"):
            reference = seconds.get((kind if kind != "limit" else args.kinds[0], ours_name))
            row += f"{own / reference:>13.2f} x" if ours_name.startswith("ours, b") else f"{own / reference:>12.2f} x"
        print(row)


def compare_losses(store: RandomActivations, args: argparse.Namespace) -> None:
    """Squared error and explained variance after equal steps on equal batches with equal learning rate and warm-up."""
    print(f"\nBatchTopK after {args.loss_steps} steps, learning rate {args.loss_lr:g}, same batches")
    for dtype in ("float32", "bfloat16"):
        step = ours(store, args, "batchtopk", dtype, args.loss_lr)
        for i in range(args.loss_steps):
            run = step(store.data[i % len(store.data)])
        print(f"{'ours, ' + dtype:<30} loss {run.objective.report()['loss']:.5f}")
    try:
        step = dictionary_learning(store, args, "batchtopk", args.loss_lr)
        for i in range(args.loss_steps):
            loss = step(store.data[i % len(store.data)])
        print(f"{'dictionary_learning':<30} loss {loss:.5f}")
    except ImportError as error:
        print(f"dictionary_learning left out: {error}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--d", type=int, default=768, help="width of the activations")
    parser.add_argument("--width", type=int, default=8192, help="number of latents F")
    parser.add_argument("--k", type=int, default=32, help="active latents per row")
    parser.add_argument("--batch", type=int, default=4096, help="rows per step")
    parser.add_argument("--groups", type=int, default=5, choices=(4, 5), help="Matryoshka prefixes")
    parser.add_argument("--kinds", nargs="+", default=["batchtopk", "matryoshka", "topk"])
    parser.add_argument("--rounds", type=int, default=7, help="measured steps of each contestant")
    parser.add_argument("--loss-steps", type=int, default=0, help="steps of the comparison of losses; 0: none")
    parser.add_argument("--loss-lr", type=float, default=1e-3)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    json_option(parser)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    sys.meta_path.insert(0, UnusedPackages())
    store = RandomActivations(args.d, args.width, args.k, args.batch, args.device)
    seconds = measure(contestants(store, args), store, args.rounds)
    print_table(seconds, args)
    rows = [
        {"kind": kind, "trainer": name, "samples_per_second": args.batch / own} for (kind, name), own in seconds.items()
    ]
    write_figures(args.json, rows)
    if args.loss_steps:
        compare_losses(store, args)


if __name__ == "__main__":
    main()
