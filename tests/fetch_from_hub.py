"""Ask the hub at HF_ENDPOINT for one of everything, for each owner named; prints {owner: {kind: [error, sentence]}}.

A program of its own, because transformers, datasets and huggingface_hub read their settings when they are imported.
"""

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from huggingface_hub import constants

from lib import load_encoder, load_images, load_llava, load_sae

LOADERS = {
    "clip": lambda owner: load_encoder(f"hf:{owner}/clip", device="cpu"),
    "converted": lambda owner: load_encoder(f"hf:{owner}/converted", device="cpu"),
    "open_clip": lambda owner: load_encoder(f"open_clip:hf-hub:{owner}/open_clip", device="cpu"),
    "llava": lambda owner: load_llava(f"hf:{owner}/llava", device="cpu"),
    "sae": lambda owner: load_sae(f"hf:{owner}/sae"),
    "pictures": lambda owner: load_images(f"hf:{owner}/pictures:train"),
}


def said(kind: str, owner: str) -> list[str]:
    try:
        LOADERS[kind](owner)
    except Exception as error:
        return [type(error).__name__, str(error)]
    return ["loaded", ""]


def main() -> None:
    sleep = time.sleep
    time.sleep = lambda seconds: sleep(min(seconds, 0.01))  # the hub's client waits longer and longer between its tries
    first, *others = sys.argv[1:]
    answers = {first: {kind: said(kind, first) for kind in LOADERS}}  # in turn: libraries are imported
    with ThreadPoolExecutor(len(LOADERS)) as pool:
        for owner in others:
            seconds = 0.2 if owner == "slow" else 1  # each of its requests is waited for, again and again
            constants.HF_HUB_ETAG_TIMEOUT = constants.HF_HUB_DOWNLOAD_TIMEOUT = seconds
            answers[owner] = dict(zip(LOADERS, pool.map(said, LOADERS, [owner] * len(LOADERS)), strict=True))
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
