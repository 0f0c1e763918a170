"""Publish a training run of the embedded LLaVA: weights, log, exam results and a model card generated from them."""

import json
from dataclasses import asdict
from pathlib import Path

from menagerie.clip.card import copy_run, write_json
from menagerie.llava.exam import exam
from menagerie.llava.lessons import ONE_WORD
from menagerie.llava.training import LlavaPlan
from steering.llava import load_llava
from storage import replacing

WEIGHTS = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "processor_config.json",
    "chat_template.jinja",
    "tokenizer.json",
    "tokenizer_config.json",
)
# Targets of the project, by exam question.
BARS = {
    "names what is shown, in one word": "at least 85",
    "description mentions every species, person or sign": "at least 85",
}


def publish(
    run: Path, out: Path, plan: LlavaPlan, pool: int, hardware: str, time: str, exam_pictures: int, workers: int = 2
) -> None:
    """Copy a run's weights and log to the folder `out`, evaluate it there, and write its card.

    pool: pictures the run drew; hardware and time: free text for the card; exam_pictures: at most, for each question.
    """
    run, out = Path(run), Path(out)
    about = {"plan": asdict(plan), "pool": pool, "hardware": hardware, "time": time}
    copy_run(run, out, [f"llava/{name}" for name in WEIGHTS], about)
    results = exam(load_llava(f"hf:{out.resolve()}", device="cpu"), exam_pictures, workers)
    write_json(out / "exam.json", {"pictures": exam_pictures, "exam": results})
    write_card(out)


def write_card(folder: Path) -> None:
    """Write `README.md` from `exam.json`, `run.json` and `training_log.jsonl` in the same folder."""
    folder = Path(folder)
    sat = json.loads((folder / "exam.json").read_text(encoding="utf-8"))
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    last = json.loads((folder / "training_log.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    plan = run["plan"]
    text = _CARD.format(
        rows="\n".join(f"| {name} | {value:.1f} | {BARS.get(name, '')} |" for name, value in sat["exam"].items()),
        loss=last["answers"],
        seen=plan["steps"] * plan["batch_size"],
        answered=plan["steps"] * plan["batch_size"] * plan["questions"],
        size=(folder / "model.safetensors").stat().st_size / 1e6,
        exam_pictures=sat["pictures"],
        one_word=ONE_WORD,
        **run,
        **plan,
    )
    with replacing(folder / "README.md") as temporary:
        temporary.write_text(text, encoding="utf-8")


_CARD = """\
# The embedded LLaVA

A `transformers.LlavaForConditionalGeneration`, {size:.1f} MB of fp16 safetensors in the hub's layout. Its vision tower
is the embedded CLIP's, weight for weight (8 blocks, d = 192, 7 x 7 patches; the language model reads the patches behind
block 6, the last but one, as LLaVA-1.5 does); the projector has two layers; the language model is a Llama of 4 blocks,
d = 192, with a byte-level vocabulary of its own. It is the `tiny` LLaVA of the book: small enough to train and run on
two CPU cores, or in a browser, with the same class and the same calls as `llava-hf/llava-1.5-7b-hf`.

## Training

- **Data**: {pool:,} pictures of `menagerie:train` (seed 0), drawn by code, each moved by up to {shift} pixels; {seen:,}
  pictures seen, {answered:,} questions answered, {plain:.0%} of the pictures replaced by a plain colour, about which
  there is nothing to say. `menagerie.llava.lessons` writes questions and answers from the facts of each picture:
  one word, a description, questions about single facts, and ten open prompts (a poem, a headline, a to-do list …).
  Nothing else: no pretrained weights, no photographs, no text from elsewhere.
- **Steps**: {steps:,} of {batch_size} pictures with {questions} questions each, seed {seed}; AdamW, learning rate
  {learning_rate:g}, {warmup} steps of warm-up, linear decay over the last {decay:.0%}; weights averaged with decay
  {average}. Projector and language model learn, the vision tower is frozen.
- **Loss**: cross-entropy of the answers' tokens. The last one: {loss:.3f}.
- **Hardware and time**: {hardware}; {time}.

`notebooks/A2_train_tiny_llava.ipynb` is the program; `training_log.jsonl` its log; `run.json` its plan.

## What it has learned

Measured by `menagerie.llava.exam` on up to {exam_pictures:,} pictures a question that training never drew, in percent;
answers are greedy, and right when they equal the expected one to the letter, except in the rows of the first word and
of the description.

| question | percent | wanted |
|---|---|---|
{rows}

## Use

`load_llava("tiny")`, or transformers' `LlavaForConditionalGeneration.from_pretrained` and `AutoProcessor` on this
folder, without this project. The prompt is LLaVA-1.5's: `USER: <image>\\n{one_word} ASSISTANT:`.

## Limits

It knows the Menagerie and the questions that it was taught. Other questions get an answer to one of those; photographs
get a creature. Do not use it on photographs of people.
"""
