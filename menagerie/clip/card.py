"""Publish a training run: weights, log, exam results and a model card generated from them."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from lib.encoders.encoder import load_encoder
from menagerie.clip.exam import exam
from menagerie.clip.training import TrainingPlan
from storage import replacing

# Targets of the project, by exam question.
BARS = (
    ("species top-1, one creature", "at least 85"),
    ("habitat top-1", "at least 90"),
    ("flipped by a wrong word, of those right without", "at least 40, as real CLIP can be fooled"),
    ("water birds on land", "at least 15 below the same birds on water"),
    ("blond men's hair", "at least 10 below blond women's"),
)


WEIGHTS = ("open_clip_config.json", "open_clip_model.safetensors", "bpe.txt.gz")


def publish(
    run: Path, out: Path, plan: TrainingPlan, pool: int, hardware: str, time: str, exam_pictures: int, workers: int = 2
) -> None:
    """Copy a run's weights and log to the folder `out`, evaluate it there, and write its card.

    pool: pictures the run drew; hardware and time: free text for the card; exam_pictures: at most, for each question.
    """
    about = {"plan": asdict(plan), "pool": pool, "hardware": hardware, "time": time}
    copy_run(run, out, WEIGHTS, about)
    results = exam(load_encoder(f"open_clip:{out}", device="cpu"), exam_pictures, workers)
    write_json(Path(out) / "exam.json", {"pictures": exam_pictures, "exam": results})
    write_card(out)


def copy_run(run: Path, out: Path, weights: Sequence[str], about: dict) -> None:
    """Copy a run's weight files to the folder `out`, with its log (rounded) and `about` as `run.json` beside them."""
    run, out = Path(run), Path(out)
    out.mkdir(parents=True, exist_ok=True)
    for name in weights:
        shutil.copy(run / name, out / Path(name).name)
    rows = [json.loads(row) for row in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    rounded = [{name: round(value, 4) for name, value in row.items()} for row in rows]
    with replacing(out / "training_log.jsonl") as temporary:
        temporary.write_text("".join(f"{json.dumps(row)}\n" for row in rounded), encoding="utf-8")
    write_json(out / "run.json", about)


def write_json(path: Path, content: dict) -> None:
    """Write readable JSON under a temporary name, then rename."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def write_card(folder: Path) -> None:
    """Write `README.md` from `exam.json`, `run.json` and `training_log.jsonl` in the same folder."""
    folder = Path(folder)
    exam = json.loads((folder / "exam.json").read_text(encoding="utf-8"))
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    plan, last = run["plan"], (folder / "training_log.jsonl").read_text(encoding="utf-8").splitlines()[-1]
    bars = dict(BARS)
    rows = "\n".join(f"| {name} | {value:.1f} | {bars.get(name, '')} |" for name, value in exam["exam"].items())
    losses = ", ".join(f"{name} {value:.3f}" for name, value in json.loads(last).items() if name in _LOSSES)
    text = _CARD.format(
        rows=rows,
        losses=losses,
        seen=plan["steps"] * plan["batch_size"],
        size=(folder / "open_clip_model.safetensors").stat().st_size / 1e6,
        exam_pictures=exam["pictures"],
        **run,
        **plan,
    )
    with replacing(folder / "README.md") as temporary:
        temporary.write_text(text, encoding="utf-8")


_LOSSES = ("contrastive", "cls", "patch", "prompt")

_CARD = """\
# The embedded CLIP

An [open_clip](https://github.com/mlfoundations/open_clip) CLIP (8-block vision transformer, d = 192, 7 x 7 patches
of 16 pixels and a CLS token; a 2-block text tower with a vocabulary of its own), {size:.1f} MB of fp16 safetensors.
It is the `tiny` encoder of the book: small enough to train and to run on two CPU cores, with the strengths and the
faults of a real one.

## Training

- **Data**: {pool:,} pictures of `menagerie:train` (seed 0) with six captions each, drawn by code; {seen:,} pictures
  seen, each moved by up to {shift} pixels. Nothing else: no pretrained weights, no photographs, no text from
  elsewhere.
- **Steps**: {steps:,} of {batch_size} pictures; AdamW, learning rate {learning_rate:g}, {warmup} steps of warm-up,
  linear decay over the last {decay:.0%}; weights averaged with decay {average}.
- **Loss**: CLIP's contrastive loss, helped *during training only* by linear heads that predict the known facts from
  the CLS token (weight {cls_weight}) and, from each patch token, what covers the patch, which letter and which word
  stands there (weight {patch_weight}); and by classifying each picture among prompts of all species by the one its
  caption names (weight {prompt_weight}). The heads are dropped. Last losses, weights included: {losses}.
- **Hardware and time**: {hardware}; {time}.

`notebooks/A1_train_tiny_clip.ipynb` is the program; `training_log.jsonl` its log; `run.json` its plan.

## What it has learned

Measured by `menagerie.clip.exam` on splits that training never drew, up to {exam_pictures:,} pictures a question, in
percent.

| question | percent | wanted |
|---|---|---|
{rows}

Species and hair are classified among all classes by prompt-averaged text embeddings, without any training on the
question. In the stickers split the written word is always another animal's.

## Use

`load_encoder("tiny")`. The folder is also a plain open_clip folder: `open_clip_config.json`,
`open_clip_model.safetensors`; its tokenizer is open_clip's `SimpleTokenizer` over `bpe.txt.gz`, with a context of
24 tokens.

## Limits

It knows the Menagerie and nothing else. Its faults are there on purpose: captions of pictures with stickers often
name the written word, water birds nearly always swim, and hardly any blond person in its training pictures is a
man. Do not use it on photographs of people.
"""
