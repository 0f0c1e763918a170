"""Every architecture that open_clip lists, at a tiny scale: a vision transformer is read, anything else is refused."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from lib.encoders.encoder import load_encoder
from tests.small_models import open_clip_folder
from tests.small_open_clip import VISION, small_configs, small_timm

TRANSFORMERS = [
    name
    for name, cfg in VISION.items()
    if cfg.get("timm_model_name", "").startswith(("vit", "eva"))
    or ("timm_model_name" not in cfg and isinstance(cfg["layers"], int))
]
OTHERS = [name for name in VISION if name not in TRANSFORMERS]


@pytest.fixture(scope="module", autouse=True)
def small():
    """List `small-NAME` beside every NAME, and let timm build its towers small."""
    import open_clip
    import timm

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("open_clip.factory._MODEL_CONFIGS", open_clip.factory._MODEL_CONFIGS | small_configs())
        patch.setattr("timm.create_model", small_timm(timm.create_model))
        yield


def rows_and_columns(name: str) -> tuple[int, int]:
    """From the configuration alone: timm's names tell the sizes of pictures and patches; a conv stem's patch is 16."""
    cfg = VISION[name]
    trunk = cfg.get("timm_model_name", "")
    patch = int(found[1]) if (found := re.search(r"patch(\d+)", trunk)) else cfg.get("patch_size", 16)
    side = int(trunk.rpartition("_")[2]) if trunk else cfg["image_size"]
    return side // patch, side // patch


def has_class_token(name: str) -> bool:
    """By what the architecture is known for: SigLIP, ViTamin, the global-average-pooled ViT and some PEs have none."""
    return not re.search(r"siglip|ViTamin|_gap_|PE-Core-bigG", name, re.IGNORECASE)


def test_the_lists_are_what_they_are_meant_to_be():
    assert len(TRANSFORMERS) > 100
    assert {re.split(r"[-_\d]", name)[0] for name in OTHERS} == {"RN", "convnext", "swin", "MobileCLIP"}


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_tokens_blocks_and_residual_stream_are_found_in(name):
    encoder = load_encoder(f"open_clip:small-{name}/none", device="cpu")
    assert encoder.grid == rows_and_columns(name)
    assert encoder.has_cls == has_class_token(name)
    assert encoder.token_kinds == ("cls",) * encoder.has_cls + ("spatial",) * (encoder.grid[0] * encoder.grid[1])
    assert encoder.n_layers == 2
    pixels = torch.randn(1, 3, *encoder.model.visual.image_size, generator=torch.Generator().manual_seed(0))
    values = encoder.run(pixels, ["0.resid_post", "1.attn_out", "1.mlp_out", "1.resid_post", "proj"])
    assert values["1.resid_post"].shape == (1, encoder.n_tokens, encoder.d_model)
    added = values["1.attn_out"] + values["1.mlp_out"]
    assert torch.allclose(values["0.resid_post"] + added, values["1.resid_post"], atol=1e-5)
    assert values["proj"].shape == (1, encoder.d_embed)
    with torch.no_grad():
        assert torch.equal(values["proj"], encoder.model.encode_image(pixels, normalize=False))


@pytest.mark.parametrize("name", OTHERS)
def test_no_vision_transformer_is(name):
    with pytest.raises(ValueError, match="its image tower is no vision transformer but a "):
        load_encoder(f"open_clip:small-{name}/none", device="cpu")


def test_loading_leaves_the_running_means_of_a_conv_stem_alone():
    loaded = load_encoder("open_clip:small-MobileCLIP-B/none", device="cpu").model
    buffers = {name: value for name, value in loaded.named_buffers() if name.endswith("running_mean")}
    assert buffers
    assert all(value.abs().max() == 0 for value in buffers.values())


def test_a_text_tower_that_must_be_fetched_is_an_error(offline):
    with pytest.raises(ConnectionError, match="HF_HUB_OFFLINE"):
        load_encoder("open_clip:text-from-the-hub/none", device="cpu")


def test_images_need_no_tokenizer_from_the_hub(offline):
    encoder = load_encoder("open_clip:small-ViT-L-14-worldwide/none", device="cpu")
    assert encoder.embed_images(torch.zeros(1, 3, 224, 224)).shape == (1, 12)
    with pytest.raises(ConnectionError, match=r"the tokenizer .* HF_HUB_OFFLINE"):
        encoder.embed_texts(["a fox"])


@pytest.fixture
def offline(monkeypatch, tmp_path):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))


@pytest.mark.parametrize(
    "settings",
    [
        {"interpolation": "bilinear", "resize_mode": "squash"},
        {"interpolation": "bicubic", "resize_mode": "longest", "fill_color": 127},
        {"interpolation": "bicubic", "resize_mode": "shortest"},
    ],
    ids=lambda settings: settings["resize_mode"],
)
def test_preprocessing_is_open_clips_own(tmp_path, settings):
    from open_clip.transform import PreprocessCfg, image_transform_v2

    folder = open_clip_folder(tmp_path)
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["preprocess_cfg"] |= settings
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    own = image_transform_v2(PreprocessCfg(size=32, **config["preprocess_cfg"]), is_train=False)
    encoder = load_encoder(f"open_clip:{folder}", device="cpu")
    for width, height in ((90, 61), (47, 120), (32, 32)):
        noise = np.random.default_rng(5).integers(0, 256, (height, width, 3), dtype=np.uint8)
        assert torch.equal(encoder.preprocess(Image.fromarray(noise)), own(Image.fromarray(noise)))


def test_patches_need_not_make_a_square(tmp_path):
    encoder = load_encoder(f"open_clip:{open_clip_folder(tmp_path, image_size=[32, 48])}", device="cpu")
    assert encoder.grid == (4, 6)
    assert encoder.n_tokens == 25
    assert encoder.preprocess(Image.new("RGB", (90, 61))).shape == (3, 32, 48)


@pytest.mark.parametrize("spec", ["tiny", "open_clip:small-ViT-B-32/none"])
def test_weights_that_are_loaded_next_or_asked_for_as_random_are_nothing_to_warn_of(spec, caplog):
    before = torch.random.get_rng_state()
    load_encoder(spec, device="cpu")
    assert not caplog.records
    assert torch.equal(torch.random.get_rng_state(), before)  # nor are anyone's random numbers others for it
