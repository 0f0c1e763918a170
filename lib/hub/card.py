"""The model card (README.md) of a pushed SAE."""

import json
from collections.abc import Mapping

from lib.sae.model import PENALISED, SAE

_ORIGIN = ("encoder", "site", "target", "tokens", "images")
_MEASURES = {
    "explained_variance": "explained variance",
    "l0": "active latents a row (L0)",
    "dead": "share of dead latents",
    "mse": "squared error a row",
}

_MEANING = (
    "It reads activations x of width d as `x ≈ b_dec + codes @ W_dec`, where the codes are "
    "`act((x - b_dec) @ W_enc + b_enc)`."
)
_TRANSCODES = (
    "A transcoder: from activations x of width d it predicts those of the target, `y ≈ b_dec + codes @ W_dec`, where "
    "the codes are `act(x @ W_enc + b_enc)`."
)


def facts_of(sae: SAE, store: object | None) -> dict:
    """Facts for the card: `_ORIGIN` from the SAE or its store, and the last `_MEASURES` of the training's log."""
    origin = sae.origin.to_dict() if sae.origin else {}
    facts = {name: origin[name] for name in _ORIGIN if name in origin}
    meta = getattr(store, "meta", None) or {}
    for name in _ORIGIN:
        value = meta.get(name, meta.get("spec", {}).get(name))
        facts |= {name: value} if value is not None else {}
    rows = sae.history
    for name in _MEASURES if rows else ():
        value = rows[-1].get(f"val_{name}", rows[-1].get(name) if name != "dead" else None)
        facts |= {name: value} if value is not None else {}
    return facts


def model_card(sae: SAE, about: Mapping[str, object], spec: str) -> str:
    """The card of a dictionary; `about` are facts as in `facts_of`, and any others; `spec` is how it is loaded."""
    config = sae.config
    tags = ["sparse-autoencoder", "mechanistic-interpretability", "vision", config.kind]
    front = {"library_name": "monosemantic-vision", "tags": tags}
    encoder = str(about.get("encoder", ""))
    if encoder.startswith("hf:") and encoder.count("/") == 1 and not encoder.startswith(("hf:.", "hf:/")):
        front["base_model"] = encoder.removeprefix("hf:")
    front |= {"license": about["license"]} if "license" in about else {}
    rows = {
        "kind": config.kind,
        "input width d": sae.d,
        **({"width of the target": sae.target.d} if sae.target else {}),
        "latents F": sae.n_features,
        **({} if config.kind in PENALISED else {"k": config.k}),
        **({"widths of the levels": ", ".join(map(str, config.group_ends(sae.n_features)))}
           if config.kind == "matryoshka" else {}),
        **({} if config.input_norm == "none" else {"input normalisation": config.input_norm}),
        **{_MEASURES.get(name, name.replace("_", " ")): value for name, value in about.items() if name != "license"},
    }  # fmt: skip
    return "\n".join([
        "---", *(f"{key}: {json.dumps(value)}" for key, value in front.items()), "---", "",
        f"# Sparse autoencoder ({config.kind}, {sae.n_features:,} latents) of {about.get('encoder', 'an encoder')}"
        f" at {about.get('site', 'an unknown site')}", "",
        _MEANING if sae.target is None else _TRANSCODES,
        "", "| | |", "|---|---|", *(f"| {name} | {_shown(value)} |" for name, value in rows.items()), "",
        "```python", "from lib import load_sae", "", f'sae = load_sae("{spec}")',
        "codes = sae.encode(x)  # (rows, d) -> (rows, F)", "```", "",
        "`config.json` holds every setting of the training, `model.safetensors` the weights.", "",
    ])  # fmt: skip


def _shown(value: object) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
