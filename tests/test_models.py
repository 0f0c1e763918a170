"""An encoder's values are the original model's, its passes end at the deepest site, and its errors say what to do."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lib.encoders.encoder import Encoder, Site, load_encoder
from lib.encoders.loading import Tower
from tests.small_hugging_face import hugging_face_folder
from tests.small_models import open_clip_folder

ACTIVATIONS = ("gelu", "act", "activation_fn")
TIMM = {"timm_model_name": "vit_tiny_patch16_224", "timm_pool": "token", "timm_proj": "linear", "image_size": 224}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {
        "open_clip": f"open_clip:{open_clip_folder(root / 'plain')}",
        "layer scale": f"open_clip:{open_clip_folder(root / 'scaled', ls_init_value=0.1, pool_type='avg')}",
        "timm": f"open_clip:{open_clip_folder(root / 'timm', **TIMM)}",
        "hugging face": f"hf:{hugging_face_folder(root / 'hf', 'clip')}",
    }


@pytest.fixture(scope="module", params=["open_clip", "layer scale", "timm", "hugging face"])
def encoder(request, folders) -> Encoder:
    return load_encoder(folders[request.param], device="cpu")


@pytest.fixture
def pixels(encoder) -> torch.Tensor:
    side = 224 if "timm" in encoder.spec else 32
    return torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(0))


def picture(width: int = 90, height: int = 60) -> Image.Image:
    return Image.fromarray(np.random.default_rng(5).integers(0, 256, (height, width, 3), dtype=np.uint8))


def blocks_of(encoder: Encoder):
    model = encoder.model
    if hasattr(model, "vision_model"):
        return model.vision_model.encoder.layers
    return model.visual.trunk.blocks if hasattr(model.visual, "trunk") else model.visual.transformer.resblocks


@torch.no_grad()
def by_plain_hooks(encoder: Encoder, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
    """Every site's value from the original model's own pass; its branches as differences of the residual stream."""
    values, handles = {}, []

    def keep(name, pick=lambda inputs, output: output):
        def hook(module, inputs, output):
            values[name] = pick(inputs, output[0] if isinstance(output, tuple) else output).clone()

        return hook

    for i, block in enumerate(blocks_of(encoder)):
        second_norm = next(getattr(block, n) for n in ("ln_2", "norm2", "layer_norm2") if hasattr(block, n))
        handles += [
            block.register_forward_hook(keep(f"{i}.resid_post")),
            block.register_forward_hook(keep(f"{i}.pre", lambda inputs, output: inputs[0])),
            second_norm.register_forward_hook(keep(f"{i}.mid", lambda inputs, output: inputs[0])),
            second_norm.register_forward_hook(keep(f"{i}.mlp_in")),
            next(getattr(block.mlp, n) for n in ACTIVATIONS if hasattr(block.mlp, n)).register_forward_hook(
                keep(f"{i}.mlp_act")
            ),
        ]
    model = encoder.model
    embedded = model.get_image_features(pixels) if hasattr(model, "vision_model") else model.encode_image(pixels)
    values["proj"] = getattr(embedded, "pooler_output", embedded)
    for handle in handles:
        handle.remove()
    for i in range(encoder.n_layers):
        values[f"{i}.attn_out"] = values[f"{i}.mid"] - values[f"{i}.pre"]
        values[f"{i}.mlp_out"] = values[f"{i}.resid_post"] - values[f"{i}.mid"]
    return values


def test_every_site_has_the_value_that_plain_hooks_on_the_original_model_give(encoder, pixels):
    expected = by_plain_hooks(encoder, pixels)
    got = encoder.run(pixels, encoder.sites)
    assert list(got) == encoder.sites
    assert len(got) == 5 * encoder.n_layers + 1
    for site, value in got.items():
        assert (value - expected[site]).abs().max() <= 1e-5, site


def test_sites_read_one_at_a_time_equal_those_read_together(encoder, pixels):
    together = encoder.run(pixels, encoder.sites)
    for site in encoder.sites:
        assert torch.equal(encoder.run(pixels, [site])[site], together[site])


def test_blocks_after_the_deepest_site_never_run(encoder, pixels):
    calls = []
    handles = [
        block.register_forward_pre_hook(lambda *_, i=i: calls.append(i)) for i, block in enumerate(blocks_of(encoder))
    ]
    encoder.run(pixels, ["0.mlp_out", "1.resid_post"])
    encoder.run(pixels, ["0.attn_out"])
    for handle in handles:
        handle.remove()
    assert calls == [0, 1, 0]


def test_a_run_leaves_no_hook_behind(encoder, pixels):
    encoder.run(pixels, ["0.resid_post"])
    encoder.run(pixels, encoder.sites)
    assert not any(module._forward_hooks for module in encoder.model.modules())


def test_shapes_match_what_the_encoder_announces(encoder, pixels):
    values = encoder.run(pixels, ["1.resid_post", "1.mlp_act", "proj"])
    assert values["1.mlp_act"].shape == (3, encoder.n_tokens, encoder.width("1.mlp_act"))
    assert encoder.width("1.mlp_act") == 4 * encoder.d_model or encoder.spec.startswith("hf:")
    assert values["1.resid_post"].shape == (3, encoder.n_tokens, encoder.width("1.resid_post"))
    assert values["proj"].shape == (3, encoder.d_embed) == (3, encoder.width("proj"))
    assert len(encoder.positions("spatial")) == encoder.grid[0] * encoder.grid[1]
    assert encoder.positions("cls").tolist() == [0]
    assert len(encoder.positions("all")) == encoder.n_tokens == len(encoder.token_kinds)


def test_image_embeddings_have_unit_norm_and_the_original_direction(encoder, pixels):
    embedded = encoder.embed_images(pixels)
    expected = torch.nn.functional.normalize(by_plain_hooks(encoder, pixels)["proj"], dim=-1)
    assert torch.allclose(embedded.norm(dim=-1), torch.ones(3))
    assert torch.allclose(embedded, expected, atol=1e-6)


def test_text_embeddings_do_not_depend_on_the_batch_they_came_in(encoder):
    texts = ["fox", "owl", "a fox", "an owl on a fox"]
    embedded = encoder.embed_texts(texts)
    assert embedded.shape == (4, encoder.d_embed)
    assert torch.allclose(embedded.norm(dim=-1), torch.ones(4))
    assert torch.allclose(embedded, encoder.embed_texts(texts, batch_size=1), atol=1e-6)
    assert encoder.embed_texts([]).shape == (0, encoder.d_embed)


def test_one_text_in_place_of_a_list_is_an_error(encoder):
    with pytest.raises(ValueError, match="takes a list"):
        encoder.embed_texts("fox")


def test_the_logit_scale_is_the_models(encoder):
    assert encoder.logit_scale == pytest.approx(1 / 0.07, rel=1e-3)
    before = encoder.model.logit_scale.data
    encoder.model.logit_scale.data = before + 1  # as where weights are loaded later
    assert encoder.logit_scale == pytest.approx(torch.e / 0.07, rel=1e-3)
    encoder.model.logit_scale.data = before


def test_gradients_reach_the_pixels(encoder, pixels):
    pixels = pixels.clone().requires_grad_()
    encoder.run(pixels, ["1.resid_post"])["1.resid_post"].sum().backward()
    assert pixels.grad.abs().sum() > 0


def test_autocast_stays_close_to_float32(folders, encoder, pixels):
    half = load_encoder(encoder.spec, device="cpu", dtype="bfloat16")
    exact, rough = (e.run(pixels, ["1.resid_post"])["1.resid_post"] for e in (encoder, half))
    assert rough.dtype == torch.float32
    assert (exact - rough).norm() / exact.norm() < 0.02


def test_preprocessing_of_a_folder_is_open_clips_own(folders):
    from open_clip.transform import PreprocessCfg, image_transform_v2

    encoder = load_encoder(folders["open_clip"], device="cpu")
    own = image_transform_v2(PreprocessCfg(size=32, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3)), is_train=False)
    assert torch.equal(encoder.preprocess(picture()), own(picture()))
    assert torch.equal(encoder.pixels([picture(), picture(40, 40)])[0], own(picture()))


def test_preprocessing_of_an_architecture_is_open_clips_own():
    import open_clip

    encoder = load_encoder("open_clip:ViT-S-32-alt/none", device="cpu")
    _, _, own = open_clip.create_model_and_transforms("ViT-S-32-alt")
    assert torch.equal(encoder.preprocess(picture(300, 260)), own(picture(300, 260)))


def test_preprocessing_of_hugging_face_is_the_image_processors_own(folders):
    from transformers import CLIPImageProcessor

    own = CLIPImageProcessor.from_pretrained(folders["hugging face"].removeprefix("hf:"))
    encoder = load_encoder(folders["hugging face"], device="cpu")
    assert torch.equal(encoder.preprocess(picture()), own(picture(), return_tensors="pt")["pixel_values"][0])


def test_random_weights_are_the_same_ones_each_time_and_leave_the_generator_alone():
    torch.manual_seed(11)
    first = load_encoder("open_clip:ViT-S-32-alt/none", device="cpu")
    drawn = torch.rand(1)
    second = load_encoder("open_clip:ViT-S-32-alt/none", device="cpu")
    torch.manual_seed(11)
    assert torch.equal(drawn, torch.rand(1))
    assert first.fingerprint == second.fingerprint


def test_a_checkpoint_file_gives_its_weights_by_the_argument_and_after_the_slash(tmp_path):
    encoder = load_encoder("open_clip:ViT-S-32-alt/none", device="cpu")
    with torch.no_grad():
        encoder.model.visual.proj.add_(1)
    safe, plain = tmp_path / "w.safetensors", tmp_path / "w.pt"
    from safetensors.torch import save_file

    save_file(encoder.model.state_dict(), safe)
    torch.save(encoder.model.state_dict(), plain)
    by_slash = load_encoder(f"open_clip:ViT-S-32-alt/{safe}", device="cpu")
    by_argument = load_encoder("open_clip:ViT-S-32-alt", device="cpu", weights=str(plain))
    assert encoder.fingerprint == by_slash.fingerprint == by_argument.fingerprint


def test_a_checkpoint_file_takes_the_place_of_a_folders_own(folders, tmp_path):
    folder = folders["open_clip"].removeprefix("open_clip:")
    other = open_clip_folder(tmp_path / "other", init_seed=9)
    encoder = load_encoder(f"open_clip:{folder}", device="cpu", weights=f"{other}/open_clip_model.safetensors")
    assert encoder.fingerprint == load_encoder(f"open_clip:{other}", device="cpu").fingerprint
    assert encoder.fingerprint != load_encoder(f"open_clip:{folder}", device="cpu").fingerprint


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    torch.save({"state_dict": print}, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match="cannot load"):
        load_encoder(f"open_clip:ViT-S-32-alt/{tmp_path / 'evil.pt'}", device="cpu")


def test_the_fingerprint_tells_weights_precisions_and_preprocessing_apart(folders, tmp_path):
    spec = folders["open_clip"]
    encoder = load_encoder(spec, device="cpu")
    copy = shutil.copytree(spec.removeprefix("open_clip:"), tmp_path / "copy")
    assert load_encoder(f"open_clip:{copy}", device="cpu").fingerprint == encoder.fingerprint
    assert load_encoder(spec, device="cpu", dtype="bfloat16").fingerprint != encoder.fingerprint
    config = copy / "open_clip_config.json"
    config.write_text(config.read_text().replace("0.25", "0.26"))
    assert load_encoder(f"open_clip:{copy}", device="cpu").fingerprint != encoder.fingerprint


def test_the_folders_own_vocabulary_is_used(folders):
    encoder = load_encoder(folders["open_clip"], device="cpu")
    tokens = encoder.tower.tokenizer(["fox"])
    assert tokens.shape == (1, 16)
    assert (tokens > 0).sum() == 3  # start, one merged word, end


def test_site_names_are_read_and_written():
    assert Site.parse("4.resid_post") == Site("resid_post", 4)
    assert str(Site.parse("0.attn_out")) == "0.attn_out"
    assert str(Site.parse("proj")) == "proj"


@pytest.mark.parametrize("name", ["4", "resid_post", "4.resid", "-1.mlp_out", "x.mlp_out", "4.resid_post.z", ""])
def test_an_unknown_site_is_an_error(name):
    with pytest.raises(ValueError, match="unknown site"):
        Site.parse(name)


def test_a_layer_beyond_the_last_is_an_error(folders):
    with pytest.raises(ValueError, match="layers 0 to 3"):
        load_encoder(folders["open_clip"], device="cpu").width("4.resid_post")


@pytest.mark.parametrize("spec", ["", "clip", "open_clip:", "hf:", "timm:vit_base", None, Path("clip")])
def test_an_unknown_spec_is_an_error(spec):
    with pytest.raises(ValueError, match="unknown encoder"):
        load_encoder(spec)


@pytest.mark.parametrize("spec", ["open_clip:./no/such/folder", "hf:./no/such/folder"])
def test_a_missing_folder_is_an_error(spec):
    with pytest.raises(FileNotFoundError, match=r"no/such/folder"):
        load_encoder(spec)


def test_a_folder_without_weights_is_an_error(folders, tmp_path):
    shutil.copy(folders["open_clip"].removeprefix("open_clip:") + "/open_clip_config.json", tmp_path)
    with pytest.raises(FileNotFoundError, match="no weights"):
        load_encoder(f"open_clip:{tmp_path}")


def test_an_unknown_architecture_is_an_error():
    with pytest.raises(ValueError, match="no architecture 'ViT-Z-99'"):
        load_encoder("open_clip:ViT-Z-99/openai")


def test_an_unknown_tag_is_an_error_that_names_the_known_ones():
    with pytest.raises(ValueError, match="laion2b_s34b_b79k"):
        load_encoder("open_clip:ViT-B-32/nothing")


def test_a_convolutional_tower_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no vision transformer"):
        load_encoder(f"open_clip:{open_clip_folder(tmp_path, layers=[1, 1, 1, 1], width=16)}")


def test_another_kind_of_hugging_face_model_is_an_error(tmp_path):
    from transformers import ResNetConfig

    ResNetConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="'resnet' model"):
        load_encoder(f"hf:{tmp_path}")


@pytest.mark.parametrize("spec", ["hf:nobody/no-such-model", "open_clip:ViT-B-32/laion2b_s34b_b79k"])
def test_an_unreachable_hub_is_an_error(spec, monkeypatch, tmp_path):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConnectionError, match="HF_HUB_OFFLINE"):
        load_encoder(spec)


def test_an_unknown_dtype_is_an_error(folders):
    with pytest.raises(ValueError, match="dtype"):
        load_encoder(folders["open_clip"], dtype="int8")


def test_an_image_only_encoder_says_that_it_has_no_text_tower(folders):
    encoder = load_encoder(folders["open_clip"], device="cpu")

    class ImageOnly(Tower):
        def place(self, layer, kind):
            return encoder.tower.place(layer, kind)

        def embed_images(self, pixels):
            return encoder.tower.embed_images(pixels)

    image_only = ImageOnly()
    image_only.__dict__.update(encoder.tower.__dict__)
    with pytest.raises(ValueError, match="no text tower"):
        Encoder(image_only, "images", torch.device("cpu"), torch.float32).embed_texts(["fox"])


def test_without_the_repository_the_embedded_clip_says_where_it_is(monkeypatch, tmp_path):
    monkeypatch.setattr("menagerie.shipped.TINY_CLIP", tmp_path / "assets/tiny/clip")
    with pytest.raises(FileNotFoundError, match=r"clone the repository and install it with `pip install -e \.`"):
        load_encoder("tiny")
