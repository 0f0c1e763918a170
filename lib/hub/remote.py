"""SAEs on the Hugging Face hub: downloading only the files that one needs, pushing one with its card.

The endpoint is `HF_ENDPOINT`, the token `HF_TOKEN` or that of `hf auth login`, the cache that of huggingface_hub.
"""

import os
import tempfile
from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path, PurePosixPath

from lib.hub.card import facts_of, model_card
from lib.sae.model import SAE
from lib.sae.origin import Origin
from storage.downloads import endpoint, plain_errors

PREFIX = "hf:"
SETTINGS = ("cfg.json", "config.json", "config.yaml", "config.yml")
"""Files of settings beside the weights, in the order in which they are looked for."""


def download_sae(spec: str, weights: Sequence[str]) -> Path:
    """The local folder or file of `hf:owner/name[/folder or file][@revision]`; `weights`: names looked for in a folder.

    Cached files are found offline too. Raises FileNotFoundError, PermissionError or ConnectionError.
    """
    text, _, revision = spec.removeprefix(PREFIX).partition("@")
    if text.startswith((".", "/", "~")):
        return Path(text).expanduser()
    owner, _, rest = text.partition("/")
    name, _, inner = rest.partition("/")
    if not owner or not name:
        raise ValueError(f"{spec!r} names no repository: write hf:owner/name, followed by /folder or /file if needed.")
    from huggingface_hub import snapshot_download

    repo, place = f"{owner}/{name}", PurePosixPath(inner)
    wanted = [place / file for file in (*weights, *SETTINGS)]
    if place.suffix:
        wanted = [place, *(folder / file for folder in (place.parent, place.parent.parent) for file in SETTINGS)]
    patterns = [str(path) for path in wanted]
    with plain_errors(repo):
        root = snapshot_download(repo, revision=revision or None, allow_patterns=patterns, endpoint=endpoint())
    local = Path(root, inner)
    if not local.is_file() and not any((local / file).is_file() for file in weights):
        raise FileNotFoundError(_nothing_there(repo, inner, revision, weights))
    return local


def _nothing_there(repo: str, inner: str, revision: str, weights: Sequence[str]) -> str:
    from huggingface_hub import HfApi

    with plain_errors(repo):
        files = HfApi(endpoint=endpoint()).list_repo_files(repo, revision=revision or None)
    below = [file for file in files if file.startswith(inner)] or files
    return (
        f"No dictionary in {repo}/{inner}: looked for {', '.join(weights)}. The repository holds "
        f"{', '.join(below[:20]) or 'nothing'}{' ...' * (len(below) > 20)}; name the folder or the file itself."
    )


def package_sae(
    sae: SAE | str | os.PathLike,
    folder: str | os.PathLike,
    store: object | None = None,
    about: Mapping[str, object] | None = None,
    spec: str | None = None,
) -> Path:
    """Write what `push_sae` pushes into a local folder: config.json, model.safetensors, README.md."""
    sae, folder = (sae if isinstance(sae, SAE) else SAE.load(sae)), Path(folder).expanduser()
    if sae.origin is None and store is not None:
        sae = copy(sae)  # the caller's stays as it is
        sae.origin = Origin.of(store)
    facts = {**facts_of(sae, store), **(about or {})}
    sae.save(folder)
    (folder / "README.md").write_text(model_card(sae, facts, spec or str(folder)), encoding="utf-8")
    return folder


def push_sae(
    sae: SAE | str | os.PathLike,
    repo: str,
    path: str = "",
    store: object | None = None,
    about: Mapping[str, object] | None = None,
    private: bool = False,
) -> str:
    """Push an SAE to the hub repository `owner/name`, made where it is missing, in one commit; returns its spec.

    sae: an SAE, or the folder that `train_sae` filled, whose log gives the card its measures. path: folder in the
    repository. store: the activations it was trained on, for encoder, site, tokens and images. about: further facts for
    the card (`license` goes into its head). Raises PermissionError without a token that may write, ConnectionError
    where the hub cannot be reached.
    """
    from huggingface_hub import HfApi

    if repo.count("/") != 1:
        raise ValueError(f"{repo!r} names no repository: write owner/name.")
    spec = PREFIX + (f"{repo}/{path}" if path else repo)
    with tempfile.TemporaryDirectory() as folder:
        package_sae(sae, folder, store, about, spec)
        api = HfApi(endpoint=endpoint())
        with plain_errors(repo):
            api.create_repo(repo, private=private, exist_ok=True)
            message = f"Add the sparse autoencoder {path}".rstrip()
            api.upload_folder(repo_id=repo, folder_path=folder, path_in_repo=path or None, commit_message=message)
    return spec
