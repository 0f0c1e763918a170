"""LLaVA: a language model that reads an image tower, which interventions change (arXiv 2504.02821, 4.4).

The papers steer one feature on one picture at a time, through the whole tower. Here all that steered answers share is
computed once: the tower up to the intervention's site and the features' codes for each picture, the
text before the picture for each prompt. The answers are the same.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from importlib.util import find_spec

import torch
from PIL import Image
from torch import Tensor

from lib.devices import choose_device, choose_dtype
from lib.encoders.encoder import Encoder, Site
from lib.encoders.loading import parts_of
from lib.encoders.tower import with_clear_errors
from lib.images.image_set import ImageSet
from steering.cached_forward import CachedForward, Variant
from steering.decoding import Decoder, EncodedPrompt, TokenSampler
from steering.interventions import Intervention
from steering.llava_tower import llava_parts

_MEMORY = 1 << 30  # bytes of keys and values in a batch, on a CPU
_MOST_ROWS = 64


class Llava:
    """A LLaVA model whose image tower can be steered. Made by `load_llava`.

    Attributes: `model`, the `LlavaForConditionalGeneration`; `processor`; `vision`, an `Encoder` over the model's own
    image tower, with its sites; `site`, the one that the language model reads (`22.resid_post` in LLaVA-1.5).
    """

    def __init__(self, parts, spec: str, device: torch.device):
        self.model, self.processor, self.spec = parts.model, parts.processor, spec
        self.vision = Encoder(parts.tower, spec, device, parts.model.dtype, is_part=True)
        self.site = f"{parts.feature_block}.resid_post"
        config = self.model.config
        self._skipped = 1 if config.vision_feature_select_strategy == "default" else 0  # first tokens, not read
        self._image_token = self.processor.tokenizer.convert_ids_to_tokens(config.image_token_id)
        ends = self.model.generation_config.eos_token_id
        ends = [] if ends is None else [ends] if isinstance(ends, int) else ends
        base = self.model.model
        self._decoder = Decoder(base.language_model, self.model.lm_head, self.model.get_input_embeddings(), ends)

    def __repr__(self) -> str:
        n_layers = self.model.config.text_config.num_hidden_layers
        return f"Llava({self.spec!r}, reads {self.site} of {self.vision!r}, {n_layers} layers of text)"

    def steered(self, *interventions: Intervention) -> AbstractContextManager[None]:
        """Context in which the model's own passes (`llava.model.generate`) are steered; see `Encoder.steered`."""
        for intervention in interventions:
            self._check(intervention)
        return self.vision.steered(*interventions)

    def generate(
        self,
        images: Sequence[Image.Image],
        prompt: str | Sequence[str],
        intervention: Intervention | Variant | None = None,
        max_new_tokens: int = 32,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[str]:
        """One answer for each picture. The arguments and errors are those of `answers`."""
        rows = self.answers(images, prompt, [intervention], max_new_tokens, temperature, seed)
        return [row[0] for row in rows]

    @torch.no_grad()
    def answers(
        self,
        images: Sequence[Image.Image],
        prompt: str | Sequence[str],
        interventions: Sequence[Intervention | Variant | None],
        max_new_tokens: int = 32,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[list[str]]:
        """The answers [picture][intervention], without leading and trailing spaces.

        prompt: one for all pictures, or one for each. interventions: each an `Intervention`, a tuple of several that
        act together, or None for the unsteered model. temperature 0 is greedy; above, tokens are sampled, for picture i
        by the seed `seed + i` with every intervention.

        Raises ValueError for a prompt that is empty, too long or contains `<image>`, for no pictures or objects that
        are not PIL pictures, and for an intervention that does not fit the tower or follows the site that is read.
        """
        variants = [self._variant(intervention) for intervention in interventions]
        prompts = self._prompts(prompt, _pictures(images))
        self._check_sampling(max_new_tokens, temperature)
        texts = [[""] * len(variants) for _ in images]
        for text in dict.fromkeys(prompts) if variants else ():
            start, length = self._encode_prompt(text, max_new_tokens)
            asked = [i for i, other in enumerate(prompts) if other == text]
            for rows, features in self._image_features(images, asked, variants, self._most_rows(length)):
                choose = TokenSampler(temperature, [seed + picture for picture, _ in rows])
                ids: list[list[int]] = [[] for _ in rows]
                for step in self._decoder.tokens(start, features, choose, max_new_tokens):
                    for row, token in step.items():
                        ids[row].append(token)
                for (picture, variant), found in zip(rows, ids, strict=True):
                    texts[picture][variant] = self._text(found).strip()
        return texts

    def stream(
        self,
        image: Image.Image,
        prompt: str,
        intervention: Intervention | Variant | None = None,
        max_new_tokens: int = 32,
        temperature: float = 0.0,
        seed: int = 0,
        stop: Callable[[], bool] = lambda: False,
    ) -> Iterator[str]:
        """The answer in pieces as they are generated; joined, they are the answer of `generate`.

        `stop` is called before every token. A piece holds whole characters and does not end in spaces.
        """
        variant = self._variant(intervention)
        [text] = self._prompts(prompt, _pictures([image]))
        self._check_sampling(max_new_tokens, temperature)
        return self._pieces(image, text, variant, max_new_tokens, TokenSampler(temperature, [seed]), stop)

    def _pieces(self, image, text: str, variant, max_new_tokens: int, choose: TokenSampler, stop) -> Iterator[str]:
        if stop():
            return
        start, _ = self._encode_prompt(text, max_new_tokens)
        [(_, features)] = self._image_features([image], [0], [variant], 1)
        ids, sent = [], ""
        for step in self._decoder.tokens(start, features, choose, max_new_tokens):
            ids += step.values()
            whole = self._text(ids).lstrip().rstrip("\ufffd").rstrip()  # U+FFFD stands for an incomplete character
            if len(whole) > len(sent):
                yield whole[len(sent) :]
                sent = whole
            if stop():
                return
        rest = self._text(ids).strip()[len(sent) :]
        if rest:
            yield rest

    # Image features for the language model

    def _image_features(
        self, images: Sequence[Image.Image], asked: list[int], variants: list[Variant], most: int
    ) -> Iterator[tuple[list[tuple[int, int]], Tensor]]:
        """Batches of at most `most` rows: (picture, variant) of each row, and its features (R, n, d of the text)."""
        together = max(1, most // len(variants))
        for first in range(0, len(asked), together):
            some = asked[first : first + together]
            cached = CachedForward(self.vision, self.site, self.vision.pixels([images[i] for i in some]), variants)
            each = max(1, most // len(some))
            for begin in range(0, len(variants), each):
                group = range(begin, min(begin + each, len(variants)))
                values = cached.values([variants[v] for v in group])  # (variants, pictures, T, d)
                features = self.model.model.multi_modal_projector(values[:, :, self._skipped :])
                yield [(picture, v) for v in group for picture in some], features.flatten(0, 1)

    def _variant(self, intervention: Intervention | Variant | None) -> Variant:
        variant = intervention or ()
        variant = (variant,) if isinstance(variant, Intervention) else tuple(variant)
        for one in variant:
            self._check(one)
        return variant

    def _check(self, intervention: Intervention) -> None:
        site, read = self.vision.site(intervention.site), Site.parse(self.site)
        if site.layer is None or site.layer > read.layer:
            raise ValueError(
                f"an intervention at {site} changes no answer: the language model reads {self.site}, so steer there "
                "or before it"
            )
        intervention.check_fit(self.vision)

    # Prompts

    def _prompts(self, prompt: str | Sequence[str], images: Sequence[Image.Image]) -> list[str]:
        """The chat text for each picture, with the image token in it."""
        prompts = [prompt] * len(images) if isinstance(prompt, str) else list(prompt)
        if len(prompts) != len(images):
            raise ValueError(f"{len(prompts)} prompts for {len(images)} pictures: give one for all, or one for each")
        text_of = {prompt: self._chat(prompt) for prompt in dict.fromkeys(prompts)}
        return [text_of[prompt] for prompt in prompts]

    def _chat(self, prompt: str) -> str:
        if not prompt.strip():
            raise ValueError("the prompt is empty: ask something about the picture")
        if self._image_token in prompt:
            raise ValueError(f"leave {self._image_token} out of the prompt: it is added for you")
        if not self.processor.chat_template:
            return f"USER: {self._image_token}\n{prompt} ASSISTANT:"  # the format of LLaVA-1.5
        parts = [{"type": "image"}, {"type": "text", "text": prompt}]
        return self.processor.apply_chat_template([{"role": "user", "content": parts}], add_generation_prompt=True)

    def _encode_prompt(self, text: str, max_new_tokens: int) -> tuple[EncodedPrompt, int]:
        """The encoded prompt, and the number of tokens of a row with its answer."""
        n_image = self.vision.n_tokens - self._skipped
        tokenizer = self.processor.tokenizer
        begun = bool(tokenizer.bos_token) and text.startswith(tokenizer.bos_token)
        ids = tokenizer(text.replace(self._image_token, n_image * self._image_token), add_special_tokens=not begun)
        ids = ids["input_ids"]
        place = ids.index(self.model.config.image_token_id)
        length, room = len(ids) + max_new_tokens, self._decoder.config.max_position_embeddings
        if length > room:
            raise ValueError(
                f"picture, prompt and answer take {length} tokens, and the model reads {room}: "
                "shorten the prompt or lower max_new_tokens"
            )
        return self._decoder.encode_prompt(ids[:place], ids[place + n_image :]), length

    def _text(self, ids: list[int]) -> str:
        return self.processor.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def _most_rows(self, length: int) -> int:
        device = self._decoder.device
        memory = torch.cuda.mem_get_info(device)[0] // 2 if device.type == "cuda" else _MEMORY
        return max(1, min(_MOST_ROWS, memory // self._decoder.bytes_per_row(length)))

    @staticmethod
    def _check_sampling(max_new_tokens: int, temperature: float) -> None:
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens is at least 1, not {max_new_tokens}")
        if not temperature >= 0:
            raise ValueError(f"a temperature is 0 (the most probable token) or more, not {temperature}")


def _pictures(images: Sequence[Image.Image]) -> Sequence[Image.Image]:
    if isinstance(images, Image.Image):
        raise ValueError("give a list of pictures: write [image]")
    if not len(images):
        raise ValueError("there are no pictures: give at least one")
    opened = () if isinstance(images, ImageSet) else images  # a set opens pictures when they are accessed
    for image in opened:
        if not isinstance(image, Image.Image):
            raise ValueError(f"{image!r} is no opened picture: open it with PIL's Image.open, or give load_images(...)")
    return images


def load_llava(
    spec: str,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype | None = None,
    device_map: str | dict | None = None,
) -> Llava:
    """Load a LLaVA by its spec: `tiny`, the book's own; `hf:NAME` or `hf:FOLDER` in the hub's layout.

    The model_type is `llava` (such as LLaVA-1.5) with an image tower of CLIP or SigLIP; only safetensors are read.
    device "auto" is CUDA, else MPS, else the CPU; dtype None is float16 on CUDA, as in the paper, and float32
    elsewhere. device_map (needs accelerate) spreads the model over devices, as transformers does, in place of device.
    Warns of settings in the checkpoint with which greedy answers would not be the most probable tokens.

    Raises ValueError for another kind of model or weights that a checkpoint lacks, FileNotFoundError for a missing
    folder, file, processor or tokenizer, ConnectionError when the hub cannot be reached, ImportError for a device_map
    without accelerate.
    """
    _, source = parts_of(spec, "LLaVA", ("hf",))
    if device_map is not None and find_spec("accelerate") is None:
        raise ImportError("a device_map needs accelerate: pip install accelerate, or give a device")
    device = choose_device(device)
    dtype = choose_dtype(dtype, torch.float16 if device.type == "cuda" else torch.float32)
    parts = with_clear_errors(spec, lambda: llava_parts(source, dtype, device_map))
    if device_map is None:
        parts.model.to(device)
        return Llava(parts, spec, device)
    places = {parameter.device for parameter in parts.tower.model.parameters()}
    if len(places) > 1 or next(iter(places)).type == "meta":
        raise ValueError("the device_map splits or offloads the image tower: give model.vision_tower one device")
    return Llava(parts, spec, places.pop())
