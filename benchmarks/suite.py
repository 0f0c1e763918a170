"""The suite of SAEs against doing its parts one by one, side by side in one run.

    python benchmarks/suite.py --cpu-seconds        # where others use the machine too

1. Activations of every site for all tokens, CLS and patches: one pass over the pictures and views of its stores,
   against an extraction for each site and scope. Both must agree bit for bit.
2. Training: the kinds of a site in one data pass, against one after the other. (On one thread this is the same work.)
3. Joint embeddings with a reconstruction in the place of each site: what the passes share is computed once, against a
   whole steered pass for each. Both must agree.

Contestants take turns; the figure is the median of the rounds.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from experiments.splicing import reconstruction_at, spliced_embeddings
from lib import SAE, ActivationStore, Encoder, SAEConfig, extract, load_encoder, load_images, train_sae

SCOPES = ("all", "cls", "spatial")
QUIET = {"workers": 0, "progress": False}


def together(encoder: Encoder, images, sites: list[str]) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        stores = extract(encoder, images, sites, "all", folder, **QUIET)
        return {(site, scope): stores[site].of_tokens(scope, encoder)[:] for site in sites for scope in SCOPES}


def one_by_one(encoder: Encoder, images, sites: list[str]) -> dict:
    found = {}
    for site in sites:
        for scope in SCOPES:
            with tempfile.TemporaryDirectory() as folder:
                found[site, scope] = extract(encoder, images, [site], scope, folder, **QUIET)[site][:]
    return found


def spliced_one_by_one(encoder: Encoder, images, splices: dict) -> dict:
    pixels, found = encoder.pixels([images[i] for i in range(len(images))]), {}
    for name, splice in splices.items():
        with torch.no_grad(), encoder.steered(*splice):
            found[name] = encoder.embed_images(pixels)
    return found


def compare(title: str, ours: Callable, theirs: Callable, rounds: int, clock: Callable[[], float]) -> tuple:
    times, results = ([], []), [None, None]
    for _ in range(rounds):
        for i, contestant in enumerate((ours, theirs)):
            start = clock()
            results[i] = contestant()
            times[i].append(clock() - start)
    a, b = map(statistics.median, times)
    print(f"{title:<52} {a:8.2f} s {b:8.2f} s {b / a:6.1f}x", flush=True)
    return tuple(results)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="tiny")
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cpu-seconds", action="store_true")
    options = parser.parse_args()
    clock = time.process_time if options.cpu_seconds else time.perf_counter
    encoder, images = load_encoder(options.encoder), load_images(f"menagerie:val[:{options.images}]")
    sites = [f"{layer}.{kind}" for layer in range(encoder.n_layers) for kind in ("mlp_out", "resid_post")]
    print(f"{options.images} pictures, {len(sites)} sites, {torch.get_num_threads()} threads{'':<17} ours   one by one")

    everything = [lambda: together(encoder, images, sites), lambda: one_by_one(encoder, images, sites)]
    ours, theirs = compare("activations of every site and scope", *everything, options.rounds, clock)
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)

    store = ActivationStore.from_tensor(ours[sites[-1], "all"])
    base = SAEConfig(kind="topk", k=16, steps=options.steps, batch_size=512)
    configs = [base, replace(base, kind="relu", l1=0.04)]
    train = lambda some: train_sae(store, some, device="cpu", progress=False)  # noqa: E731
    pairs = [lambda: train(configs), lambda: [train(config) for config in configs]]
    compare("training of two kinds at a site", *pairs, options.rounds, clock)

    splices = {site: (reconstruction_at(site, SAE(base, encoder.width(site))),) for site in sites}
    splicing = [
        lambda: spliced_embeddings(encoder, images, splices, **QUIET),
        lambda: spliced_one_by_one(encoder, images, splices),
    ]
    ours, theirs = compare("embeddings with each site's reconstruction", *splicing, options.rounds, clock)
    assert all(torch.allclose(ours[site], theirs[site], atol=1e-4) for site in sites)


if __name__ == "__main__":
    main()
