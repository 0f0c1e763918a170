"""Steered answers a second, against the published way (2504.02821, 4.4), with the same text.

The published way is written anew here from its description: a hook on the block that LLaVA reads encodes its output by
the SAE, sets one latent to alpha on all tokens and puts the decoding in its place; then one picture and one feature at
a time go through the processor and `model.generate` (greedy, 5 new tokens). `Llava.answers` takes the same pictures and
features. Model, precision, SAE, threads and process are the same, the two take turns, and every text is compared.

The SAE is trained for a moment on the site that is read; the features are its strongest, alpha four times their
largest code. The mid-sized LLaVA has random weights: its answers mean nothing, its work is that of a trained one.

    python benchmarks/steered_answers.py [--images 4] [--features 32] [--rounds 3] [--llava tiny middle hf:FOLDER]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.figures import finish_computing, json_option, write_figures
from lib import SAE, Intervention, Llava, SAEConfig, extract, load_images, load_llava, train_sae

QUESTION = "What is shown in this image? Use exactly one word!"
NEW_TOKENS, TRAIN, STEPS, TIMES_MAX = 5, 150, 150, 4
MIDDLE_VISION = {
    "model_type": "clip_vision_model",
    "image_size": 196,
    "patch_size": 14,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
}
MIDDLE_TEXT = {
    "model_type": "llama",
    "hidden_size": 512,
    "intermediate_size": 1376,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "max_position_embeddings": 512,
}


def middle_folder(folder: Path) -> Path:
    """A LLaVA of 12 blocks of width 512 on 14 x 14 patches and 6 layers of text, with random weights."""
    import transformers

    own = transformers.AutoProcessor.from_pretrained("assets/tiny/llava", trust_remote_code=False)
    tokenizer = own.tokenizer
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "bos", "eos")}
    config = transformers.LlavaConfig(
        vision_config=MIDDLE_VISION,
        text_config={**MIDDLE_TEXT, "vocab_size": len(tokenizer), **ids},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=196,
    )
    torch.manual_seed(0)
    model = transformers.LlavaForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:  # so large that texts depend on the picture
                parameter.copy_(torch.randn_like(parameter) / parameter.shape[-1] ** 0.5)
    model.save_pretrained(folder)
    transformers.GenerationConfig(**ids).save_pretrained(folder)
    square = {"height": 196, "width": 196}
    images = transformers.CLIPImageProcessor(size={"shortest_edge": 196}, crop_size=square)
    settings = {"patch_size": 14, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    transformers.LlavaProcessor(images, tokenizer, chat_template=own.chat_template, **settings).save_pretrained(folder)
    return folder


def trained_sae(llava: Llava, n_features: int, n_pictures: int) -> tuple[SAE, dict[int, float]]:
    """An SAE of a moment's training, and alpha by feature for its strongest features."""
    images = load_images(f"menagerie:train[:{n_pictures}]")
    with tempfile.TemporaryDirectory() as folder:
        stores = extract(llava.vision, images, [llava.site], "all", folder, batch_size=32, progress=False)
        x: Tensor = stores[llava.site][:].float()
        config = SAEConfig(kind="batchtopk", expansion=4, k=12, steps=STEPS, batch_size=512, threshold_start=10)
        sae = train_sae(stores[llava.site], config, progress=False).to(llava.vision.device)
    largest = sae.encode(x.to(llava.vision.device)).detach().amax(0)
    top = largest.topk(n_features)
    return sae, {int(j): TIMES_MAX * float(value) for j, value in zip(top.indices, top.values, strict=True)}


@torch.no_grad()
def published_way(llava: Llava, sae: SAE, pictures: list[Image.Image], alphas: dict[int, float]) -> list[list[str]]:
    """One picture, one feature at a time, the whole tower with a hook on the block that is read."""
    model, processor = llava.model, llava.processor
    block = model.model.vision_tower.encoder.layers[llava.vision.site(llava.site).layer]
    steering: dict[str, int] = {}

    def hook(module, inputs, output):
        codes = sae.encode(output)
        codes[..., steering["feature"]] = alphas[steering["feature"]]
        return sae.decode(codes).to(output.dtype)

    handle = block.register_forward_hook(hook, prepend=True)  # transformers collects hidden states by hooks too
    parts = [{"type": "image"}, {"type": "text", "text": QUESTION}]
    text = processor.apply_chat_template([{"role": "user", "content": parts}], add_generation_prompt=True)
    answers = [[""] * len(alphas) for _ in pictures]
    for i, picture in enumerate(pictures):
        for j, feature in enumerate(alphas):
            steering["feature"] = feature
            inputs = processor(images=picture, text=text, return_tensors="pt").to(model.device)
            out = model.generate(**inputs, do_sample=False, max_new_tokens=NEW_TOKENS)
            new = out[0, inputs["input_ids"].shape[1] :]
            answers[i][j] = processor.decode(new, skip_special_tokens=True).strip()
    handle.remove()
    return answers


def ours(llava: Llava, sae: SAE, pictures: list[Image.Image], alphas: dict[int, float]) -> list[list[str]]:
    interventions = [Intervention(sae, llava.site, {j: alpha}, keep_error=False) for j, alpha in alphas.items()]
    return llava.answers(pictures, QUESTION, interventions, max_new_tokens=NEW_TOKENS)


def compare(name: str, llava: Llava, n_images: int, n_features: int, rounds: int) -> dict:
    """Steered answers (labels) a second of both, on the clock; every text compared."""
    images = load_images(f"menagerie:val[:{n_images}]")
    pictures = [images[i] for i in range(n_images)]
    sae, alphas = trained_sae(llava, n_features, TRAIN)
    contestants = {"published": published_way, "ours": ours}
    for contestant in contestants.values():
        contestant(llava, sae, pictures[:1], dict(list(alphas.items())[:2]))  # warm up
    times: dict[str, list[float]] = {contestant: [] for contestant in contestants}
    busy: dict[str, list[float]] = {contestant: [] for contestant in contestants}
    texts = {}
    for _ in range(rounds):
        for contestant, run in contestants.items():
            wall, cpu = time.perf_counter(), time.process_time()
            texts[contestant] = run(llava, sae, pictures, alphas)
            finish_computing()
            times[contestant].append(time.perf_counter() - wall)
            busy[contestant].append(time.process_time() - cpu)
    labels = n_images * n_features
    pairs = zip(texts["ours"], texts["published"], strict=True)
    same = sum(a == b for mine, theirs in pairs for a, b in zip(mine, theirs, strict=True))
    if llava.model.dtype == torch.float32 and same < labels:
        raise SystemExit(f"{name}: {labels - same} of {labels} texts differ, so the times are not comparable")
    speed = {contestant: labels / statistics.median(taken) for contestant, taken in times.items()}
    work = {contestant: statistics.median(taken) / labels * 1000 for contestant, taken in busy.items()}
    distinct = len({text for row in texts["ours"] for text in row})
    print(
        f"{name:<24}{speed['published']:>11.1f}{speed['ours']:>11.1f}{speed['ours'] / speed['published']:>8.1f}x"
        f"{work['published']:>12.1f}{work['ours']:>9.1f}{work['published'] / work['ours']:>8.1f}x"
        f"   {same} of {labels} the same, {distinct} different answers",
        flush=True,
    )
    return {"llava": name, "labels": labels, "same": same, **speed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--features", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtypes", nargs="*", default=["float32", "bfloat16"])
    parser.add_argument("--llava", nargs="*", default=["tiny", "middle"], help="specs, or middle: random weights")
    json_option(parser)
    args = parser.parse_args()
    rows = []
    print(f"{torch.get_num_threads()} threads; labels a second (wall clock) and CPU milliseconds for each label")
    print(f"{'':<24}{'published':>11}{'ours':>11}{'ratio':>9}{'published':>12}{'ours':>9}{'ratio':>9}   texts")
    for spec in args.llava:
        with tempfile.TemporaryDirectory() as folder:
            source = f"hf:{middle_folder(Path(folder))}" if spec == "middle" else spec
            for dtype in args.dtypes:
                llava = load_llava(source, dtype=dtype)
                rows.append(compare(f"{spec}, {dtype}", llava, args.images, args.features, args.rounds))
    write_figures(args.json, rows)


if __name__ == "__main__":
    main()
