"""Publish a training run of the TopK CLIP: weights, log, exam results and a model card generated from them."""

import json
from dataclasses import asdict
from pathlib import Path

from menagerie.clip.card import copy_run, write_json
from menagerie.clip.exam import exam
from menagerie.shipped import TINY_CLIP
from menagerie.topk_clip.topk_mlp import WEIGHTS, TopKPlan, load_topk_clip
from storage import replacing


def publish(
    run: Path, out: Path, plan: TopKPlan, pool: int, hardware: str, time: str, exam_pictures: int, workers: int = 2
) -> None:
    """Copy a run's weights and log to the folder `out`, run the embedded CLIP's exam there, and write its card.

    pool: pictures the run drew; hardware and time: free text for the card; exam_pictures: at most, for each question.
    """
    copy_run(run, out, WEIGHTS, {"plan": asdict(plan), "pool": pool, "hardware": hardware, "time": time})
    sat = exam(load_topk_clip(out, device="cpu"), exam_pictures, workers)
    write_json(Path(out) / "exam.json", {"pictures": exam_pictures, "exam": sat})
    write_card(out)


def write_card(folder: Path) -> None:
    """Write `README.md` from the exam, plan and log in the same folder, and from the embedded CLIP's exam."""
    folder = Path(folder)
    sat, teacher = (json.loads((home / "exam.json").read_text(encoding="utf-8")) for home in (folder, TINY_CLIP))
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    last = json.loads((folder / "training_log.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    plan = run["plan"]
    questions = [name for name in sat["exam"] if name in teacher["exam"]]  # one bears its number of pictures
    text = _CARD.format(
        rows="\n".join(f"| {name} | {sat['exam'][name]:.1f} | {teacher['exam'][name]:.1f} |" for name in questions),
        losses=f"streams {last['stream']:.3f}, embedding {last['embedding']:.4f}",
        seen=plan["steps"] * plan["batch_size"],
        size=(folder / "model.safetensors").stat().st_size / 1e6,
        exam_pictures=sat["pictures"],
        teacher_pictures=teacher["pictures"],
        **run,
        **plan,
    )
    with replacing(folder / "README.md") as temporary:
        temporary.write_text(text, encoding="utf-8")


_CARD = """\
# The embedded CLIP with TopK MLPs

The image tower of the embedded CLIP (`assets/tiny/clip`), in which every token keeps the {k} largest of its 576 hidden
neurons in each of the 8 MLPs; the others are zero. {size:.1f} MB of fp16 safetensors. The book compares its neurons
with the features of a sparse autoencoder. The text tower is the embedded CLIP's and is not in this folder.

## Training

- **Start**: the embedded CLIP's weights. **Goal**: to see what it sees. The loss is the distance of the residual
  streams behind every block (share of their variance, weight {stream_weight:g}) plus one less the cosine of the joint
  embeddings (weight {embedding_weight:g}). No caption, no fact. Last losses, weights included: {losses}.
- **Data**: {pool:,} pictures of `menagerie:train`; {seen:,} pictures seen, each moved by up to {shift} pixels.
- **Steps**: {steps:,} of {batch_size} pictures; AdamW, learning rate {learning_rate:g}, {warmup} steps of warm-up,
  linear decay over the last {decay:.0%}; weights averaged with decay {average}; seed {seed}.
- **Hardware and time**: {hardware}; {time}.

`notebooks/A5_train_topk_clip.ipynb` is the program; `training_log.jsonl` its log; `run.json` its plan.

## What is left of the embedded CLIP

Measured by `menagerie.clip.exam`, in percent: this model on up to {exam_pictures:,} pictures a question, the embedded
CLIP on {teacher_pictures:,}, as its own card says.

| question | TopK MLPs | embedded CLIP |
|---|---|---|
{rows}

## Use

`menagerie.topk_clip.topk_mlp.load_topk_clip()`. In `config.json`, `k` is the number of neurons that a token keeps.

## Limits

It knows the Menagerie and nothing else, as its teacher does, and has its teacher's faults. Do not use it on photographs
of people.
"""
