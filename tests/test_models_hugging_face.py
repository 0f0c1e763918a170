"""Every family of Hugging Face: sites and embeddings are plain transformers' own, preprocessing the processor's own."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from lib.encoders.encoder import load_encoder
from tests.small_hugging_face import FAMILIES, hugging_face_folder

SECOND_NORMS = ("layer_norm2", "norm2", "layernorm_after", "rms_norm2")

PREFIX = {
    "dinov2 registers": ("cls", *["register"] * 4),
    "deit": ("cls", "register"),
    "deit classifier": ("cls", "register"),
    "dinov3": ("cls", *["register"] * 4),
    "dinov3 gated": ("cls", *["register"] * 4),
    **dict.fromkeys(("siglip", "siglip vision", "aimv2", "aimv2 headless", "aimv2 lit", "ijepa"), ()),
}
"""Tokens before the patches, where it is not CLS alone."""


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    """Family -> folder, written once."""
    folders = {}

    def folder(family: str):
        if family not in folders:
            folders[family] = hugging_face_folder(tmp_path_factory.mktemp("hub") / family, family)
        return folders[family]

    return folder


@pytest.fixture(scope="module", params=FAMILIES)
def family(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def folder(family, folder_of):
    return folder_of(family)


@pytest.fixture(scope="module")
def encoder(folder):
    return load_encoder(f"hf:{folder}", device="cpu")


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    random = np.random.default_rng(5)
    sizes = ((90, 61), (47, 120), (33, 32))
    return [Image.fromarray(random.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in sizes]


@torch.no_grad()
def by_transformers(folder, family: str, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
    """Every site's value from the model as transformers loads it: hidden states, and what enters the second norms."""
    import transformers

    model = getattr(transformers, FAMILIES[family][0]).from_pretrained(folder)
    parts = ("vision_model", "vit", "deit", "beit")
    vision = next((getattr(model, part) for part in parts if hasattr(model, part)), model)
    if family.startswith("mae"):
        vision.config.mask_ratio = 0.0
    middles = []
    for name, module in vision.named_modules():
        if name.endswith(SECOND_NORMS):
            module.register_forward_pre_hook(lambda module, inputs: middles.append(inputs[0]))
    order = {"noise": torch.arange(16.0).expand(len(pixels), -1)} if family.startswith("mae") else {}
    states = vision(pixel_values=pixels, output_hidden_states=True, **order).hidden_states
    values = {}
    for i, (before, middle, after) in enumerate(zip(states, middles, states[1:], strict=False)):
        values |= {f"{i}.attn_out": middle - before, f"{i}.mlp_out": after - middle, f"{i}.resid_post": after}
        block = blocks_of(vision)[i]
        values[f"{i}.mlp_in"] = next(getattr(block, name) for name in SECOND_NORMS if hasattr(block, name))(middle)
        values[f"{i}.mlp_act"] = hidden_neurons(block, values[f"{i}.mlp_in"])
    return values | {"proj": embedding(model, vision, family, states[-1])}


def blocks_of(vision) -> torch.nn.ModuleList:
    """The longest list of modules: the blocks."""
    return next(m for m in vision.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == 3)


def hidden_neurons(block, normed: torch.Tensor) -> torch.Tensor:
    """What the last matrix of a block's MLP reads, by its definition, from what the MLP reads."""
    mlp = block.ffn if hasattr(block, "ffn") else block.mlp
    act = next(getattr(mlp, name) for name in ("activation_fn", "activation", "act_fn") if hasattr(mlp, name))
    if hasattr(mlp, "gate_proj"):
        return act(mlp.gate_proj(normed)) * mlp.up_proj(normed)
    return act((mlp.fc1 if hasattr(mlp, "fc1") else mlp.up_proj)(normed))


def embedding(model, vision, family: str, last: torch.Tensor) -> torch.Tensor:
    """E by its definition, from what leaves the last block."""
    if family in ("ijepa", "beit mean", "beit masked"):
        pooled = vision.layernorm(last)[:, 1 if family.startswith("beit") else 0 :].mean(1)
    elif family.startswith(("clip", "siglip", "metaclip", "mlcd")):
        normed = vision.post_layernorm(last if family.startswith("siglip") else last[:, 0])
        pooled = vision.head(normed) if family.startswith("siglip") else normed
    elif family.startswith("aimv2"):
        normed = vision.rms_norm(last)
        pooled = normed.mean(1) if family.endswith("headless") else vision.head(normed)
    else:
        pooled = (vision.norm if family.startswith("dinov3") else vision.layernorm)(last)[:, 0]
    return model.visual_projection(pooled) if hasattr(model, "visual_projection") else pooled


def test_every_site_has_the_value_that_transformers_gives(encoder, folder, family, pictures):
    pixels = encoder.pixels(pictures)
    expected = by_transformers(folder, family, pixels)
    values = encoder.run(pixels, encoder.sites)
    assert set(values) == set(expected)
    assert len(values) == 16
    for site, value in values.items():
        assert value.shape[-1] == encoder.width(site)
        assert (value - expected[site]).abs().max() < 1e-5, site


def test_attention_and_mlp_add_up_to_the_residual_stream(encoder, pictures):
    values = encoder.run(encoder.pixels(pictures), encoder.sites)
    for layer in (1, 2):
        added = values[f"{layer}.attn_out"] + values[f"{layer}.mlp_out"]
        assert torch.allclose(values[f"{layer - 1}.resid_post"] + added, values[f"{layer}.resid_post"], atol=1e-5)
        assert values[f"{layer}.attn_out"].abs().max() > 0.01
        assert values[f"{layer}.mlp_out"].abs().max() > 0.01


def test_tokens_are_told_apart(encoder, family):
    prefix = PREFIX.get(family, ("cls",))
    rows, columns = (3, 4) if family.startswith("dinov2") or family == "dinov3" else (4, 4)
    assert encoder.grid == (rows, columns)
    assert encoder.token_kinds == prefix + ("spatial",) * rows * columns
    assert encoder.has_cls == ("cls" in prefix)


def test_preprocessing_is_the_image_processors_own(encoder, folder, pictures):
    from transformers import AutoImageProcessor

    own = AutoImageProcessor.from_pretrained(folder)
    for picture in pictures:
        assert torch.equal(encoder.preprocess(picture), own(picture, return_tensors="pt")["pixel_values"][0])


def test_two_loads_have_the_same_fingerprint(encoder, folder):
    assert load_encoder(f"hf:{folder}", device="cpu").fingerprint == encoder.fingerprint


@pytest.mark.parametrize(
    ("family", "resize", "size", "box"),
    [
        ("clip", Image.Resampling.BICUBIC, (47, 32), (7, 0, 39, 32)),
        ("siglip", Image.Resampling.BICUBIC, (32, 32), (0, 0, 32, 32)),
        ("vit", Image.Resampling.BILINEAR, (32, 32), (0, 0, 32, 32)),
        ("dinov2", Image.Resampling.BICUBIC, (53, 36), (10, 6, 42, 30)),
    ],
)
def test_preprocessing_resizes_crops_and_normalises_as_its_config_says(folder_of, pictures, family, resize, size, box):
    encoder = load_encoder(f"hf:{folder_of(family)}", device="cpu")
    mean, std = (torch.tensor(encoder.tower.transform_spec[key])[:, None, None] for key in ("image_mean", "image_std"))
    picture = pictures[0].resize(size, resize).crop(box)
    expected = (torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 255 - mean) / std
    got = encoder.preprocess(pictures[0])
    assert got.shape == expected.shape
    assert ((got - expected) * std * 255).abs().max() <= 2  # grey levels: torchvision and PIL round differently


def test_pictures_of_one_channel_and_with_transparency_are_read(folder_of, pictures):
    encoder = load_encoder(f"hf:{folder_of('vit')}", device="cpu")
    for mode in ("L", "RGBA", "P"):
        assert encoder.preprocess(pictures[0].convert(mode)).shape == (3, 32, 32)


@pytest.mark.parametrize("family", ["clip", "aimv2 lit"])
def test_texts_are_embedded_as_transformers_does(folder_of, family):
    import transformers

    model_class = getattr(transformers, FAMILIES[family][0])
    model = model_class.from_pretrained(folder_of(family), attn_implementation="eager")
    tokens = torch.tensor([[0, 5, 4, 1], [0, 2, 4, 1]])
    output = model.get_text_features(input_ids=tokens, attention_mask=torch.ones_like(tokens))
    expected = torch.nn.functional.normalize(output.pooler_output, dim=-1)
    encoder = load_encoder(f"hf:{folder_of(family)}", device="cpu")
    assert torch.allclose(encoder.embed_texts(["fox", "fx"]), expected, atol=1e-5)
    beside_a_longer_one = encoder.embed_texts(["fox fox fox", "fox"])[1]
    assert torch.allclose(beside_a_longer_one, expected[0], atol=1e-5)


def test_siglips_texts_are_lower_case_padded_to_the_full_length_and_not_masked(folder_of):
    from transformers import SiglipModel

    encoder = load_encoder(f"hf:{folder_of('siglip')}", device="cpu")
    tokens = torch.tensor([[3, 4, 1, 0, 0, 0, 0, 0], [5, 5, 5, 5, 5, 5, 5, 1]])
    model = SiglipModel.from_pretrained(folder_of("siglip"))
    expected = torch.nn.functional.normalize(model.get_text_features(input_ids=tokens).pooler_output, dim=-1)
    assert torch.allclose(encoder.embed_texts(["A Fox", "owl " * 12]), expected, atol=1e-5)


def test_the_logit_scale_is_the_models(folder_of):
    scale = load_file(folder_of("siglip") / "model.safetensors")["logit_scale"]
    encoder = load_encoder(f"hf:{folder_of('siglip')}", device="cpu")
    assert encoder.logit_scale == pytest.approx(float(scale.exp()))
    assert load_encoder(f"hf:{folder_of('dinov2')}", device="cpu").logit_scale == 1


@pytest.mark.parametrize("family", ["dinov2", "vit classifier", "clip vision", "siglip vision", "aimv2"])
def test_an_image_only_encoder_says_that_it_has_no_text_tower(folder_of, family):
    with pytest.raises(ValueError, match="no text tower"):
        load_encoder(f"hf:{folder_of(family)}", device="cpu").embed_texts(["fox"])


def test_a_classifier_embeds_by_its_cls_and_no_random_pooler(folder_of, pictures):
    from transformers import ViTForImageClassification

    encoder = load_encoder(f"hf:{folder_of('vit classifier')}", device="cpu")
    pixels = encoder.pixels(pictures)
    model = ViTForImageClassification.from_pretrained(folder_of("vit classifier"))
    assert torch.allclose(model.classifier(encoder.run(pixels, ["proj"])["proj"]), model(pixels).logits, atol=1e-5)
    assert not any("pooler" in name for name, _ in encoder.model.named_parameters())


def test_registers_and_the_distillation_token_are_neither_cls_nor_spatial(folder_of):
    for family, n_tokens, registers in (("dinov2 registers", 17, [1, 2, 3, 4]), ("deit", 18, [1])):
        encoder = load_encoder(f"hf:{folder_of(family)}", device="cpu")
        assert encoder.positions("register").tolist() == registers
        assert encoder.positions("cls").tolist() == [0]
        assert encoder.positions("spatial").tolist() == list(range(len(registers) + 1, n_tokens))


def test_a_checkpoint_in_the_layout_of_older_transformers_loads_the_same(folder_of, tmp_path):
    old = shutil.copytree(folder_of("clip vision"), tmp_path / "old")
    weights = load_file(old / "model.safetensors")
    prefix = "" if any(name.startswith("vision_model.") for name in weights) else "vision_model."
    save_file({prefix + name: w for name, w in weights.items()}, old / "model.safetensors", {"format": "pt"})
    loaded, expected = (load_encoder(f"hf:{f}", device="cpu") for f in (old, folder_of("clip vision")))
    assert loaded.fingerprint == expected.fingerprint


def test_the_embedded_eye_loads_like_a_folder_of_the_hub(folder_of, monkeypatch):
    monkeypatch.setattr("menagerie.shipped.TINY_EYE", folder_of("dinov2"))
    eye = load_encoder("tiny-eye", device="cpu")
    assert eye.fingerprint == load_encoder(f"hf:{folder_of('dinov2')}", device="cpu").fingerprint


def test_without_the_repository_the_embedded_eye_says_where_it_is(monkeypatch, tmp_path):
    monkeypatch.setattr("menagerie.shipped.TINY_EYE", tmp_path / "assets/tiny/eye")
    with pytest.raises(FileNotFoundError, match="clone the repository"):
        load_encoder("tiny-eye")


@pytest.mark.parametrize("spec", ["tiny-eye", "hf:some/model"])
def test_other_weights_are_for_open_clip_only(spec):
    with pytest.raises(ValueError, match="for open_clip specs"):
        load_encoder(spec, weights="w.safetensors")


@pytest.mark.parametrize("name", ["ResNet", "ConvNext", "Swin", "Bert"])
def test_what_is_no_vision_transformer_is_refused_by_a_sentence_that_says_what_is_read(tmp_path, name):
    import transformers

    getattr(transformers, f"{name}Config")().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=rf"'{name.lower()}' model; .* clip, .* siglip, .* dinov2, .* vit, deit"):
        load_encoder(f"hf:{tmp_path}")


def test_siglip_2_of_changing_resolution_is_refused(tmp_path):
    from transformers import Siglip2Config

    Siglip2Config().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="NaFlex"):
        load_encoder(f"hf:{tmp_path}")


def without(folder, copy, *files: str):
    shutil.copytree(folder, copy)
    for file in files:
        (copy / file).unlink()
    return copy


def test_a_folder_without_its_preprocessing_is_an_error(folder_of, tmp_path):
    folder = without(folder_of("vit"), tmp_path / "copy", "preprocessor_config.json")
    with pytest.raises(FileNotFoundError, match=r"no preprocessor_config\.json"):
        load_encoder(f"hf:{folder}")


def test_pickled_weights_are_not_read_and_the_error_says_how_to_convert_them(folder_of, tmp_path):
    folder = without(folder_of("vit classifier"), tmp_path / "copy", "model.safetensors")
    torch.save({}, folder / "pytorch_model.bin")
    convert = re.escape(f"transformers.ViTModel.from_pretrained('{folder}')")
    with pytest.raises(FileNotFoundError, match=rf"no model\.safetensors .*{convert}"):
        load_encoder(f"hf:{folder}")


def test_weights_that_would_be_random_are_an_error(folder_of, tmp_path):
    folder = shutil.copytree(folder_of("vit"), tmp_path / "copy")
    weights = load_file(folder / "model.safetensors")
    del weights["layernorm.bias"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 1 weights of a ViTModel, such as layernorm\.bias"):
        load_encoder(f"hf:{folder}")


def changed(folder, copy, file: str, **settings):
    shutil.copytree(folder, copy)
    config = json.loads((copy / file).read_text()) | settings
    (copy / file).write_text(json.dumps(config))
    return copy


def test_pictures_of_changing_size_are_refused(folder_of, tmp_path):
    folder = changed(folder_of("clip"), tmp_path / "copy", "preprocessor_config.json", do_center_crop=False)
    with pytest.raises(ValueError, match="several sizes"):
        load_encoder(f"hf:{folder}")


def test_pictures_of_another_size_than_the_models_are_refused(folder_of, tmp_path):
    size = {"height": 40, "width": 40}
    folder = changed(folder_of("vit"), tmp_path / "copy", "preprocessor_config.json", size=size)
    with pytest.raises(ValueError, match=r"\(40, 40\) pixels, and the model needs \(32, 32\)"):
        load_encoder(f"hf:{folder}")


def test_code_that_comes_with_a_checkpoint_is_not_run(folder_of, tmp_path):
    custom = {"model_type": "mine", "auto_map": {"AutoConfig": "configuration_mine.MyConfig"}}
    folder = changed(folder_of("vit"), tmp_path / "copy", "config.json", **custom)
    (folder / "configuration_mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(ValueError, match="Python code of its own"):
        load_encoder(f"hf:{folder}")
    assert not (tmp_path / "ran").exists()


@pytest.fixture(scope="module")
def real(root):
    folder = root.parent / "shared" / "real"
    if not (folder / "deit-tiny").is_dir():
        pytest.skip(f"{folder} is absent: it holds a real DeiT and real photographs, which the project does not ship")
    return folder


def joined(name: str) -> str:
    return name.lower().replace(" ", "")  # a chain saw is a chainsaw


def test_a_real_deit_has_the_features_and_the_classes_that_transformers_gives(real):
    from transformers import ViTForImageClassification

    encoder = load_encoder(f"hf:{real / 'deit-tiny'}", device="cpu")
    assert (encoder.n_layers, encoder.d_model, encoder.grid, encoder.n_tokens) == (12, 192, (14, 14), 197)
    files = sorted(real.glob("imagenette-mini/val/*/*"))[::2]
    pixels = encoder.pixels([Image.open(file).convert("RGB") for file in files])
    values = encoder.run(pixels, ["proj", "5.resid_post"])
    model = ViTForImageClassification.from_pretrained(real / "deit-tiny", dtype=torch.float32)
    with torch.no_grad():
        own = model(pixels[:4], output_hidden_states=True)
        logits = model.classifier(values["proj"])
    assert torch.allclose(logits[:4], own.logits, atol=1e-4)
    assert torch.allclose(values["5.resid_post"][:4], own.hidden_states[6], atol=1e-4)
    guesses = [model.config.id2label[int(best)] for best in logits.argmax(1)]
    right = [joined(file.parent.name) in joined(guess) for file, guess in zip(files, guesses, strict=True)]
    assert np.mean(right) > 0.5  # 67.5 % on 200 photographs, by chance 0.1 %


def test_weights_of_a_local_folder_are_read_without_a_progress_bar(capfd):
    from transformers.utils import logging

    load_encoder("tiny-eye", device="cpu")
    assert "Loading weights" not in capfd.readouterr().err
    assert logging.is_progress_bar_enabled()
