"""Publish a training run of the eye: weights, log, exam results and a model card generated from them."""

import json
from dataclasses import asdict
from pathlib import Path

from lib.encoders.encoder import load_encoder
from menagerie.clip.card import copy_run, write_json
from menagerie.eye.exam import exam
from menagerie.eye.training import EyePlan
from storage import replacing

WEIGHTS = ("config.json", "model.safetensors", "preprocessor_config.json")


def publish(
    run: Path, out: Path, plan: EyePlan, pool: int, hardware: str, time: str, exam_pictures: int, workers: int = 2
) -> None:
    """Copy a run's weights and log to the folder `out`, evaluate it there, and write its card.

    pool: pictures the run drew; hardware and time: free text for the card; exam_pictures: for each question.
    """
    copy_run(run, out, WEIGHTS, {"plan": asdict(plan), "pool": pool, "hardware": hardware, "time": time})
    results = exam(load_encoder(f"hf:{Path(out).resolve()}", device="cpu"), exam_pictures, workers)
    write_json(Path(out) / "exam.json", {"pictures": exam_pictures, "exam": results})
    write_card(out)


def write_card(folder: Path) -> None:
    """Write `README.md` from `exam.json`, `run.json` and `training_log.jsonl` in the same folder."""
    folder = Path(folder)
    sat = json.loads((folder / "exam.json").read_text(encoding="utf-8"))
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    last = json.loads((folder / "training_log.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    plan = run["plan"]
    text = _CARD.format(
        rows="\n".join(f"| {question} | {value:.1f} |" for question, value in sat["exam"].items()),
        losses=f"facts at CLS {last['cls']:.3f}, patches {last['patch']:.3f}",
        seen=plan["steps"] * plan["batch_size"],
        size=(folder / "model.safetensors").stat().st_size / 1e6,
        exam_pictures=sat["pictures"],
        **run,
        **plan,
    )
    with replacing(folder / "README.md") as temporary:
        temporary.write_text(text, encoding="utf-8")


_CARD = """\
# The embedded eye

An image-only encoder (`transformers.Dinov2Model`: 6 blocks, d = 160, 7 x 7 patches of 16 pixels and a CLS token;
`pooler_output` is the embedding E), {size:.1f} MB of fp16 safetensors in the hub's layout. It is the `tiny-eye` of the
book: the judge E of the Monosemanticity Score, as DINOv2 is the paper's. It shares neither weights nor architecture nor
seed with the embedded CLIP whose features it judges, and it never saw a caption.

## Training

- **Data**: {pool:,} pictures of `menagerie:train`, drawn by code; {seen:,} pictures seen, each moved by up to {shift}
  pixels. Nothing else: no pretrained weights, no photographs, no text.
- **Steps**: {steps:,} of {batch_size} pictures, seed {seed}; AdamW, learning rate {learning_rate:g}, {warmup} steps of
  warm-up, linear decay over the last {decay:.0%}; weights averaged with decay {average}.
- **Loss**: linear heads that predict the known facts from the CLS token (weight {cls_weight}) and, from each patch
  token, what covers the patch, which letter and which word stands there (weight {patch_weight}). The heads are dropped.
  Last losses, weights included: {losses}.
- **Hardware and time**: {hardware}; {time}.

`notebooks/A3_train_tiny_eye.ipynb` is the program; `training_log.jsonl` its log; `run.json` its plan.

## What it has learned

Measured by `menagerie.eye.exam` on pictures that training never drew ({exam_pictures:,} are asked about, as many are
looked up; a question counts where it applies), in percent.

| question | percent |
|---|---|
{rows}

## Use

`load_encoder("tiny-eye")`, or `transformers.AutoModel.from_pretrained` on this folder, without this project.

## Limits

It knows the Menagerie and nothing else. Unlike DINOv2 it was told facts, so it is a better judge of the Menagerie than
a self-supervised encoder is of photographs. Do not use it on photographs.
"""
