"""A LLaVA that says what it was asked to see: the panel's tests need no model, only something that answers exactly."""

import time
from types import SimpleNamespace

import torch
from PIL import Image

FEATURES, WIDTH, GRID = 6, 4, (7, 7)
SITE = "6.resid_post"
SAE = SimpleNamespace(n_features=FEATURES, d=WIDTH, W_dec=torch.eye(FEATURES, WIDTH))
PROMPTS = ["What is shown?", "Describe this image."]
NAMES = ["owl", "cat", "snow", "forest", "hat", "glasses"]


class SpeakingLlava:
    """Answers "<first pixel> <prompt> <features>=<value> …", word by word; `wait` seconds before each word."""

    site = SITE  # that the language model reads

    def __init__(self, wait: float = 0.0):
        self.wait = wait
        self.streams = 0  # how many were begun
        self.vision = SimpleNamespace(grid=GRID, has_cls=True, site=lambda name: name)

    def text(self, image, prompt, intervention):
        red = image.convert("RGB").getpixel((0, 0))[0]
        steered = [f"{NAMES[j]}={value:g}" for j, value in (intervention.features if intervention else {}).items()]
        return " ".join([f"red{red}", *prompt.split(), *steered])

    def answers(self, images, prompt, interventions, max_new_tokens=64):
        return [[self.text(image, prompt, edit) for edit in interventions] for image in images]

    def stream(self, image, prompt, intervention=None, max_new_tokens=64, stop=lambda: False):
        self.streams += 1
        for number, word in enumerate(self.text(image, prompt, intervention).split()):
            time.sleep(self.wait)
            if stop():
                return
            yield word if number == 0 else f" {word}"


def pictures(count: int = 3, size: int = 112) -> list[Image.Image]:
    """Noise of which every pixel matters; picture i begins with red 10 i."""
    made = []
    for i in range(count):
        generator = torch.Generator().manual_seed(i)
        values = torch.randint(0, 256, (size, size, 3), dtype=torch.uint8, generator=generator)
        values[0, 0, 0] = 10 * i
        made.append(Image.fromarray(values.numpy()))
    return made


def described(count: int = FEATURES) -> list[dict]:
    """The first features, as the panel wants them told."""
    return [
        {"feature": j, "name": NAMES[j], "max": 2.0 + j, "mean": 1.0, "note": f"note of {NAMES[j]}",
         "pictures": [Image.new("RGB", (20, 20), (40 * j, 80, 120))]}
        for j in range(count)
    ]  # fmt: skip
