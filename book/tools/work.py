"""Work items of a profile, from the parameters of its notebooks, for `make plan`.

Counted are the forward passes of the encoders, the training of the dictionaries, their pass over the evaluation
pictures, interventions and answers (work_steering.py), and their disk space. Work that several notebooks share is
counted for the first one.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from book.tools.profiles import Profile
from book.tools.sizes import DATA_SETS, Pictures, VisionTransformer, encoder_size, pictures
from book.tools.status import literal
from book.tools.work_steering import answers_flops, passes_flops
from experiments.sae_folders import sae_folder
from lib.activations.store import activations_folder
from lib.sae.model import SAEConfig
from storage import folder_name, read_meta

LLAVA_ENCODERS = {"tiny": "tiny"}  # the image encoder of a LLaVA
DEFAULT_LLAVA_ENCODER = "hf:openai/clip-vit-large-patch14-336"
STEP_FLOPS = 4  # times B d F: the encoder's product is about half of a training step (benchmarks/RESULTS.md)
STORE_BYTES, FLOAT_BYTES = 2, 4  # activations are stored in float16, dictionaries in float32


@dataclass(frozen=True)
class Work:
    """One work item. `place` identifies equal work of two notebooks; it is done where `folders` are complete, or where
    the files in `made` exist.

    `float32`: computed in full precision on a GPU too; `drawn`: pictures of the Menagerie; `disk`, `memory`: bytes.
    """

    what: str
    place: tuple
    flops: float
    float32: bool = False
    disk: float = 0.0
    pictures: int = 0
    drawn: bool = False
    memory: float = 0.0
    folders: tuple[Path, ...] = ()
    made: tuple[Path, ...] = ()

    @property
    def done(self) -> bool:
        if self.made:
            return all(file.is_file() for file in self.made)
        return bool(self.folders) and all(_complete(folder) for folder in self.folders)


def _complete(folder: Path) -> bool:
    return bool((read_meta(folder) or {}).get("complete"))


class Planner:
    """Estimates work from the parameters of a profile's notebooks, whose names mean the same in all."""

    def __init__(self, profile: Profile):
        self.profile = profile
        self.root = profile.root / "build" / profile.name
        self.assumed: dict[str, None] = {}
        self.data_sets: dict[str, float] = {}
        self.seen: set[tuple] = set()

    def of_notebook(self, name: str) -> list[Work] | None:
        """Work of the notebook, without that of notebooks before it; None where it cannot be estimated."""
        values = {key: literal(declared.default) for key, declared in self.profile.declared[name].items()}
        values |= self.profile.parameters(name)
        if "llava" in values:
            values.setdefault("encoder", LLAVA_ENCODERS.get(values["llava"], DEFAULT_LLAVA_ENCODER))
            values.setdefault("tokens", values.get("sae_tokens", "all"))
        try:
            return list(self._new([*self._work(values), *self._steering(name, values)]))
        except (KeyError, TypeError, ValueError):  # parameters are missing or have another meaning here
            return None

    def _new(self, works: Iterable[Work]) -> Iterable[Work]:
        """Work that an earlier notebook does costs only memory here."""
        for work in works:
            known = work.place in self.seen
            self.seen.add(work.place)
            yield replace(work, flops=0.0, disk=0.0, pictures=0) if known else work

    def _work(self, values: dict) -> Iterable[Work]:
        encoder, tokens = values["encoder"], "all" if "scopes" in values else values.get("tokens", "cls")
        size = self._encoder(encoder)
        sites = _several(values, "sites", "site")
        if "steps" in values and not _configs(values, last=True):
            raise ValueError("the dictionaries that are trained here are not known from the parameters")
        if "n_close" in values:
            yield from self._exploration(encoder, size, values)
        for name in ("train_images", "eval_images"):
            if name in values and sites:
                yield self._extraction(encoder, size, self._pictures(values[name]), sites, tokens)
        if "steps" in values and sites:
            for scope in values.get("scopes", [tokens]):  # the suite: views of one store of all tokens
                yield from self._dictionaries(encoder, size, sites, scope, values)
        for judge in values.get("judges", []):
            if judge != "facts":
                yield self._judgement(judge, self._pictures(values["eval_images"]))

    def _steering(self, name: str, values: dict) -> Iterable[Work]:
        """Interventions and answers: nothing is stored, and they run again with the notebook."""
        done = (self.profile.executed(name),)
        size = self._encoder(values["encoder"])
        for what, flops in {"interventions": passes_flops(size, values), "answers": answers_flops(values)}.items():
            if flops:
                yield Work(what, (what, name), flops, made=done)

    def _exploration(self, encoder: str, size: VisionTransformer, values: dict) -> Iterable[Work]:
        """Chapter 2: all sites at all tokens for a few pictures, and two vectors at each layer for the others."""
        everywhere = [f"{i}.{kind}" for i in range(size.layers) for kind in ("attn_out", "mlp_out", "resid_post")]
        pictures = self._pictures(values["images"])
        close = replace(pictures, spec=f"{pictures.spec}#", count=min(pictures.count, values["n_close"]))
        yield self._extraction(encoder, size, close, [*everywhere, "proj"], "all")
        for tokens in ("cls", "mean"):
            yield self._extraction(encoder, size, pictures, everywhere[2::3], tokens)

    def _extraction(
        self, encoder: str, size: VisionTransformer, pictures: Pictures, sites: list[str], tokens: str
    ) -> Work:
        """One pass over a set of pictures; sites that an earlier notebook reads cost nothing."""
        todo = [site for site in sites if ("store", encoder, pictures.spec, site, tokens) not in self.seen]
        self.seen |= {("store", encoder, pictures.spec, site, tokens) for site in todo}
        values = sum(size.rows(site, tokens) * size.width_at(site) for site in todo)
        folder = activations_folder(self.root, pictures.spec, tokens)
        return Work(
            f"activations of {pictures.count:,} pictures",
            ("pass", encoder, pictures.spec, tuple(todo), tokens),
            flops=pictures.count * size.flops(todo) if todo else 0.0,
            disk=pictures.count * values * STORE_BYTES,
            pictures=pictures.count if todo else 0,
            drawn=pictures.base.startswith("menagerie"),
            memory=size.parameters() * FLOAT_BYTES,
            folders=tuple(folder / site for site in todo),
        )

    def _judgement(self, judge: str, pictures: Pictures) -> Work:
        """A judge's embeddings of the evaluation pictures, kept apart and in float32 (experiments/similarity.py)."""
        work = self._extraction(judge, self._encoder(judge), pictures, ["proj"], "mean")
        root = self.root / "judges" / folder_name(judge)
        folder = activations_folder(root, pictures.spec, "proj") / "proj"
        return replace(work, disk=work.disk * FLOAT_BYTES / STORE_BYTES, folders=(folder,) if work.folders else ())

    def _dictionaries(
        self, encoder: str, size: VisionTransformer, sites: list[str], tokens: str, values: dict
    ) -> Iterable[Work]:
        """The dictionaries of all sites; those of one site are trained together, in one pass over its activations."""
        n_eval = self._pictures(values["eval_images"]).count if "eval_images" in values else 0
        for site in sites:
            works = [
                self._dictionary(encoder, size, site, tokens, config, values.get("train_images"), n_eval)
                for config in _configs(values, last=site == sites[-1])
            ]
            together = sum(work.memory / (4 if work.place in self.seen else 1) for work in works)
            yield from (replace(work, memory=together) for work in works)

    def _dictionary(
        self, encoder: str, size: VisionTransformer, site: str, tokens: str, config: SAEConfig, images: str, n_eval: int
    ) -> Work:
        d = size.width_at(site)
        n_features = config.n_features(d)
        training = STEP_FLOPS * config.steps * config.batch_size * d * n_features
        scoring = 2 * n_eval * size.rows(site, tokens) * d * n_features
        weights = (2 * d * n_features + n_features + d) * FLOAT_BYTES
        folder = sae_folder(self.root, site, tokens, config)
        place = ("dictionary", encoder, images, site, tokens, config)
        # weights, their gradients and Adam's two moments; of one that exists only the weights
        flops, memory = training + scoring, 4 * weights
        return Work("dictionary", place, flops, True, weights, memory=memory, folders=(folder,))

    def _encoder(self, spec: str) -> VisionTransformer:
        try:
            return encoder_size(spec, self.profile.root)
        except ValueError as error:
            self.assumed[f"{error}; ViT-L/14 at 336 px was assumed."] = None
            return encoder_size("open_clip:ViT-L-14-336")

    def _pictures(self, spec: str) -> Pictures:
        found = pictures(spec)
        if not found.known:
            self.assumed[f"{found.base} is not on this machine; {found.count:,} pictures were assumed."] = None
        elif found.base in DATA_SETS:
            self.data_sets[found.base] = DATA_SETS[found.base][1]
        return found


def _several(values: dict, plural: str, singular: str) -> list:
    """The values of a parameter that may be a list."""
    return values.get(plural) or ([values[singular]] if singular in values else [])


def _configs(values: dict, last: bool) -> list[SAEConfig]:
    """The dictionaries of one site: the grid, the one studied in detail, the nested levels, and at the last site the
    sweep over k."""
    settings = {name: values[name] for name in ("k", "steps", "batch_size", "seed") if name in values}
    sizes = [
        (kind, size)
        for kind in _several(values, "kinds", "kind")
        for size in _several(values, "expansions", "expansion")
    ]
    if "expansion" in values:
        closer = [values["kind"]] if "kind" in values else []
        sizes += [(kind, values["expansion"]) for kind in (*closer, *values.get("frozen", []))]
    configs = [SAEConfig(kind=kind, expansion=size, **settings) for kind, size in sizes]
    if "levels" in values:
        width = values["levels"][-1]
        fractions = [(end - start) / width for start, end in pairwise([0, *values["levels"]])]
        configs.append(SAEConfig(kind="matryoshka", width=width, group_fractions=fractions, **settings))
        configs.append(SAEConfig(kind="batchtopk", width=width, **settings))
    if "sweep" in values and last:
        swept = SAEConfig(kind=values["sweep_kind"], expansion=values["sweep_expansion"], **settings)
        configs += [replace(swept, k=k) for k in values["sweep"]]
    if "shown" in values:  # the one that is trained again
        again = SAEConfig(kind=values["shown"], expansion=values["shown_expansion"], **settings)
        return list(dict.fromkeys(configs + [replace(again, seed=seed) for seed in values.get("seeds", []) if last]))
    return list(dict.fromkeys(replace(one, seed=seed) for one in configs for seed in values.get("seeds", [one.seed])))
