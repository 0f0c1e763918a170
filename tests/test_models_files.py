"""Folders of models that are damaged, incomplete or hostile: one sentence that names the file, and nothing runs."""

import gzip
import json
import os
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from lib.encoders.encoder import load_encoder
from lib.sae.model import SAE, SAEConfig
from lib.sae.origin import Origin
from steering.interventions import Intervention, Neurons
from steering.llava import load_llava
from tests.small_hugging_face import hugging_face_folder
from tests.small_llava import llava_folder
from tests.small_models import open_clip_folder

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 1710540580\n"


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("whole")
    return {
        "open_clip": open_clip_folder(root / "open_clip"),
        "hf": hugging_face_folder(root / "hf", "clip"),
        "llava": llava_folder(root / "llava"),
    }


def load(family: str, folder: Path):
    return load_llava(f"hf:{folder}", device="cpu") if family == "llava" else load_encoder(f"{family}:{folder}", "cpu")


def weights_of(folder: Path) -> Path:
    return next(folder.glob("*.safetensors"))


def config_of(folder: Path) -> Path:
    return folder / ("open_clip_config.json" if (folder / "open_clip_config.json").exists() else "config.json")


FAMILIES = pytest.mark.parametrize("family", ["open_clip", "hf", "llava"])


@FAMILIES
@pytest.mark.parametrize("content", [b"", LFS, b"<!DOCTYPE html>", b"\0" * 4096, "half"], ids=str)
def test_damaged_weights_are_named(whole, tmp_path, family, content):
    folder = shutil.copytree(whole[family], tmp_path / "copy")
    path = weights_of(folder)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if content == "half" else content)
    with pytest.raises(ValueError, match=path.name) as error:
        load(family, folder)
    assert len(str(error.value)) < 700
    assert "\n" not in str(error.value)


@FAMILIES
@pytest.mark.parametrize("content", [b"", b"{", b"[]", LFS, b"\xff\xfe"], ids=str)
def test_damaged_settings_are_named(whole, tmp_path, family, content):
    folder = shutil.copytree(whole[family], tmp_path / "copy")
    config_of(folder).write_bytes(content)
    with pytest.raises(ValueError, match=config_of(folder).name):
        load(family, folder)


@FAMILIES
@pytest.mark.parametrize("name", ["config", "weights"])
def test_a_named_pipe_is_not_waited_for(whole, tmp_path, family, name):
    folder = shutil.copytree(whole[family], tmp_path / "copy")
    path = config_of(folder) if name == "config" else weights_of(folder)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ValueError, match="a named pipe"):
        load(family, folder)


@FAMILIES
@pytest.mark.parametrize("name", ["merges.txt", "special_tokens_map.json", "bpe.txt.gz"])
def test_a_named_pipe_that_only_a_tokenizer_reads_is_not_waited_for(whole, tmp_path, family, name):
    folder = shutil.copytree(whole[family], tmp_path / "copy")
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with pytest.raises(ValueError, match=rf"{name} is a named pipe"):
        load(family, folder)


def changed(path: Path, change) -> None:
    """Let `change` alter the settings in a file."""
    settings = json.loads(path.read_text())
    change(settings)
    path.write_text(json.dumps(settings))


@pytest.mark.parametrize(
    ("family", "part", "name", "value", "sentence"),
    [
        ("open_clip", "vision_cfg", "width", 1_500_000, "describes a model of at least"),
        ("open_clip", "vision_cfg", "layers", 10**9, "layers = 1000000000, which no model has"),
        ("open_clip", "vision_cfg", "image_size", 10**7, "image_size = 10000000"),
        ("open_clip", "text_cfg", "vocab_size", 10**8, "vocab_size = 100000000"),
        ("hf", "vision_config", "hidden_size", 1_500_000, "describes a model of at least"),
        ("hf", "text_config", "num_hidden_layers", 10**6, "num_hidden_layers = 1000000"),
        ("llava", "text_config", "hidden_size", 1_500_000, "describes a model of at least"),
    ],
)
def test_numbers_that_no_model_has_cost_no_memory(whole, tmp_path, monkeypatch, family, part, name, value, sentence):
    import open_clip
    import transformers

    folder = shutil.copytree(whole[family], tmp_path / "copy")
    changed(config_of(folder), lambda c: c.get("model_cfg", c)[part].update({name: value}))
    monkeypatch.setattr(open_clip, "create_model", None)
    monkeypatch.setattr(transformers.PreTrainedModel, "from_pretrained", None)
    with pytest.raises(ValueError, match=rf"{config_of(folder).name} .*{sentence}"):
        load(family, folder)


@FAMILIES
@pytest.mark.parametrize("file", ["config", "beside"])
def test_settings_that_ask_for_code_are_refused(whole, tmp_path, family, file):
    folder = shutil.copytree(whole[family], tmp_path / "copy")
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    asks = {"tokenizer_kwargs": {"trust_remote_code": True}}
    if file == "config":
        changed(config_of(folder), lambda c: c.get("model_cfg", c).get("text_cfg", c).update(asks))
    else:
        (folder / "tokenizer_config.json").write_text(json.dumps(asks))
    with pytest.raises(ValueError, match="asks to run Python code of its own"):
        load(family, folder)
    assert not (tmp_path / "ran").exists()


def test_a_tokenizer_in_code_is_never_run(whole, tmp_path):
    """With the auto_map by which transformers would find it, and a tokenizer's name in the configuration."""
    folder = shutil.copytree(whole["open_clip"], tmp_path / "copy")
    (folder / "bpe.txt.gz").unlink()
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass")
    about = {"auto_map": {"AutoTokenizer": ["evil.Evil", None]}, "tokenizer_class": "Evil"}
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    (folder / "vocab.json").write_text("{}")
    changed(folder / "open_clip_config.json", lambda c: c["model_cfg"]["text_cfg"].update(hf_tokenizer_name="x/y"))
    encoder = load("open_clip", folder)
    with pytest.raises((ValueError, OSError)):
        encoder.embed_texts(["fox"])
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "template", ["", " ", "\0", "{% for %}", "{{ messages[0].content }}", "{{ 1 / 0 }}", "<image>"], ids=repr
)
def test_a_damaged_template_of_a_conversation_is_named(whole, tmp_path, template):
    folder = shutil.copytree(whole["llava"], tmp_path / "copy")
    (folder / "chat_template.jinja").write_text(template)
    with pytest.raises(ValueError, match=r"chat_template.jinja") as error:
        load("llava", folder)
    assert "\n" not in str(error.value)


@FAMILIES
@pytest.mark.parametrize("mean", [["a", 0, 0], [[1], 0, 0], [float("inf"), 0, 0], "x", [0.1, 0.2]], ids=str)
def test_preprocessing_that_reads_no_picture_is_refused_when_the_model_is_loaded(whole, tmp_path, family, mean):
    folder = shutil.copytree(whole[family], tmp_path / "copy")
    path = folder / "open_clip_config.json"
    if family != "open_clip":
        names = ("preprocessor_config.json", "processor_config.json")
        path = next(folder / name for name in names if (folder / name).exists())
    name = "mean" if family == "open_clip" else "image_mean"

    def change(settings: dict) -> None:
        holder = settings.get("preprocess_cfg") or settings.get("image_processor") or settings
        holder[name] = mean

    changed(path, change)
    with pytest.raises(ValueError, match=str(folder)) as error:
        load(family, folder)
    assert "\n" not in str(error.value)


CODE_OF = {
    "open_clip, its texts' model": ("open_clip", "text", {"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil"}),
    "open_clip, its texts' tokenizer": ("open_clip", "tokenizer", {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}),
    "hf, the model": ("hf", "config.json", {"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil"}),
    "hf, the pictures": ("hf", "preprocessor_config.json", {"AutoImageProcessor": "evil.Evil"}),
    "hf, the tokenizer": ("hf", "tokenizer_config.json", {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}),
    "llava, the model": ("llava", "config.json", {"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil"}),
    "llava, the processor": ("llava", "processor_config.json", {"AutoProcessor": "evil.Evil"}),
}


@pytest.fixture(params=["tty", "pipe"])
def yes(request, monkeypatch):
    """Somebody answers "y" to whatever is asked, on a terminal or through a pipe."""
    reading, writing = os.openpty()[::-1] if request.param == "tty" else os.pipe()
    os.write(writing, b"y\n" * 20)
    with open(reading) as answers:
        monkeypatch.setattr("sys.stdin", answers)
        yield
    os.close(writing)


def bring_code(folder: Path, family: str, file: str, auto_map: dict, ran: Path) -> None:
    """Have the folder, or one that its settings name, ask for code that leaves the file `ran`."""
    home = folder if family != "open_clip" else folder.parent / "texts"
    home.mkdir(exist_ok=True)
    (home / "evil.py").write_text(f"open({str(ran)!r}, 'w')\nclass Evil: pass")
    if family == "open_clip":
        (folder / "bpe.txt.gz").unlink()
        names = {"hf_tokenizer_name": str(home), **({"hf_model_name": str(home)} if file == "text" else {})}
        changed(folder / "open_clip_config.json", lambda c: c["model_cfg"]["text_cfg"].update(names))
        (home / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": auto_map}))
    for path in [home / "tokenizer_config.json", folder / "tokenizer_config.json"] if family == "open_clip" else []:
        path.write_text(json.dumps({"tokenizer_class": "Evil", "auto_map": auto_map}))
        (path.parent / "tokenizer.json").write_text("{}")
    if family != "open_clip":
        about = json.loads((folder / file).read_text()) if (folder / file).exists() else {}
        kinds = {"model_type": "evil"} if file == "config.json" else {"image_processor_type": "Evil"}
        (folder / file).write_text(json.dumps({**about, **kinds, "tokenizer_class": "Evil", "auto_map": auto_map}))


def load_and_embed(family: str, folder: Path) -> None:
    loaded = load(family, folder)
    if family != "llava":  # an encoder makes its tokenizer when the first text comes
        loaded.embed_texts(["fox"])


@pytest.mark.parametrize("what", CODE_OF)
def test_code_of_a_model_never_runs_and_nobody_is_asked(whole, tmp_path, yes, capfd, what):
    """Transformers has a tokenizer and a processor of its own for the two models that load."""
    family, file, auto_map = CODE_OF[what]
    folder = shutil.copytree(whole[family], tmp_path / "copy")
    bring_code(folder, family, file, auto_map, tmp_path / "ran")
    if what in ("hf, the tokenizer", "llava, the processor"):
        load_and_embed(family, folder)
    else:
        with pytest.raises((ValueError, OSError)) as error:
            load_and_embed(family, folder)
        assert "\n" not in str(error.value)
    assert "[y/N]" not in "".join(capfd.readouterr())
    assert not (tmp_path / "ran").exists()


def test_settings_of_a_tokenizer_that_open_clip_does_not_need_are_refused(whole, tmp_path):
    folder = shutil.copytree(whole["open_clip"], tmp_path / "copy")
    asks = {"bpe_path": "/etc/passwd"}
    changed(config_of(folder), lambda c: c["model_cfg"]["text_cfg"].update(tokenizer_kwargs=asks))
    with pytest.raises(ValueError, match=r"sets \['bpe_path'\] of the tokenizer"):
        load("open_clip", folder)


@pytest.mark.parametrize("name", ["../outside.safetensors", "/outside.safetensors"])
def test_an_index_that_leaves_its_folder_is_refused(whole, tmp_path, name):
    folder = shutil.copytree(whole["hf"], tmp_path / "copy")
    weights_of(folder).rename(tmp_path / "outside.safetensors")
    save_file({"x": torch.zeros(1)}, folder / "other.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"logit_scale": name}}))
    with pytest.raises(ValueError, match=r"index\.json|outside the folder"):
        load("hf", folder)


@pytest.mark.parametrize("family", ["open_clip", "hf"])
def test_mutated_files_are_read_or_named_in_one_sentence(whole, tmp_path, family):
    """Bytes changed at random in each file; transformers and open_clip say nothing of their own."""
    generator, folder = random.Random(0), shutil.copytree(whole[family], tmp_path / "copy")
    for path in (config_of(folder), weights_of(folder)):
        original = path.read_bytes()
        for _ in range(8):
            damaged = bytearray(original)
            for _ in range(generator.choice((1, 20))):
                damaged[generator.randrange(min(len(damaged), 4000))] = generator.randrange(256)
            path.write_bytes(damaged)
            said = ""
            try:
                load(family, folder)
            except (ValueError, OSError) as error:
                said = str(error)
            assert "\n" not in said
            assert len(said) < 700
        path.write_bytes(original)


# Tokenizers


@pytest.mark.parametrize("family", ["clip", "siglip", "metaclip 2"])
def test_a_clip_without_tokenizer_embeds_pictures_and_refuses_texts(tmp_path, family):
    folder = hugging_face_folder(tmp_path / "hf", family)
    for name in ("tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"):
        (folder / name).unlink(missing_ok=True)
    encoder = load("hf", folder)
    assert encoder.embed_images([Image.new("RGB", (40, 40))]).shape == (1, encoder.d_embed)
    with pytest.raises(FileNotFoundError, match=r"no tokenizer in .*, so texts cannot be embedded: copy"):
        encoder.embed_texts(["a fox", "an owl"])


@pytest.mark.parametrize("settings", [{}, {"hf_tokenizer_name": "timm/some"}])
def test_an_open_clip_folder_without_tokenizer_does_too(whole, tmp_path, settings):
    folder = shutil.copytree(whole["open_clip"], tmp_path / "copy")
    (folder / "bpe.txt.gz").unlink()
    changed(config_of(folder), lambda c: c["model_cfg"]["text_cfg"].update(settings))
    encoder = load("open_clip", folder)
    with pytest.raises(FileNotFoundError, match=r"no tokenizer in .*, so texts cannot be embedded"):
        encoder.embed_texts(["a fox"])


@pytest.mark.parametrize("content", [b"", b"no gzip", gzip.compress(b"x", mtime=0)[:-6]])
def test_a_damaged_vocabulary_is_named(whole, tmp_path, content):
    folder = shutil.copytree(whole["open_clip"], tmp_path / "copy")
    (folder / "bpe.txt.gz").write_bytes(content)
    with pytest.raises((ValueError, OSError), match=r"bpe\.txt\.gz"):
        load("open_clip", folder).embed_texts(["a fox"])


# A tag and other weights


def test_other_weights_keep_the_tags_activation_and_preprocessing(tmp_path):
    import open_clip

    random_one = load_encoder("open_clip:ViT-S-32-alt/none", device="cpu")
    path = tmp_path / "w.safetensors"
    save_file(random_one.model.state_dict(), path)
    tag = {"url": "", "hf_hub": "", "quick_gelu": True, "mean": (0.1, 0.2, 0.3), "std": (0.5, 0.6, 0.7),
           "interpolation": "bilinear", "resize_mode": "squash"}  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(open_clip.pretrained._PRETRAINED, "ViT-S-32-alt", {"quick": tag})
        encoder = load_encoder("open_clip:ViT-S-32-alt/quick", device="cpu", weights=str(path))
        with pytest.warns(UserWarning, match=r"w\.safetensors does not say its activation and is read with GELU"):
            load_encoder(f"open_clip:ViT-S-32-alt/{path}", device="cpu")
    plain = load_encoder(f"open_clip:ViT-S-32-alt/{path}", device="cpu")
    assert encoder.tower.transform_spec["mean"] == (0.1, 0.2, 0.3)
    assert encoder.tower.transform_spec["resize_mode"] == "squash"
    assert "QuickGELU" in str(encoder.model.visual.transformer.resblocks[0].mlp)
    assert "QuickGELU" not in str(plain.model.visual.transformer.resblocks[0].mlp)
    same = zip(encoder.model.state_dict().values(), random_one.model.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in same)
    assert encoder.fingerprint != plain.fingerprint


# Weights that are changed later


def test_the_fingerprint_follows_the_weights(whole, tmp_path):
    encoder, before = load("hf", whole["hf"]), []
    state = {name: tensor.clone() for name, tensor in encoder.model.state_dict().items()}

    def shows(change) -> None:
        before.append(encoder.fingerprint)
        with torch.no_grad():
            change()
        assert encoder.fingerprint not in before

    weight = encoder.tower.blocks[0].mlp.fc1.weight
    shows(lambda: weight.mul_(2))
    shows(lambda: weight.data.mul_(2))
    shows(lambda: setattr(weight, "data", weight.data + 1))
    shows(lambda: setattr(encoder.tower.blocks[0].mlp.fc1, "weight", torch.nn.Parameter(weight + 1)))
    shows(lambda: encoder.model.load_state_dict({name: tensor + 1 for name, tensor in state.items()}))
    encoder.model.load_state_dict(state)
    assert encoder.fingerprint == before[0]


# An SAE of another place


def test_an_sae_of_another_encoder_or_site_is_refused_unless_told(whole, tmp_path):
    encoder, pixels = load("hf", whole["hf"]), torch.zeros(1, 3, 32, 32)
    other = load_encoder(f"open_clip:{open_clip_folder(tmp_path)}", device="cpu")
    sae = SAE(SAEConfig(kind="topk", width=30, k=3), 24)
    sae.origin = Origin(encoder.spec, encoder.fingerprint, "1.resid_post", "cls", precision="torch.float32")
    edit = Intervention(sae, "1.resid_post", {3: 2.0})
    with encoder.steered(edit), encoder.steered(edit):
        encoder.run(pixels, ["1.resid_post"])
    for wrong, on, sentence in (
        (Intervention(sae, "0.resid_post", {3: 2.0}), encoder, "trained at 1.resid_post, not at 0.resid_post"),
        (edit, other, "trained on hf:.*, not on this open_clip"),
    ):
        with pytest.raises(ValueError, match=sentence), on.steered(wrong):
            pass
        told = Intervention(sae, wrong.site, {3: 2.0}, check=False)
        with on.steered(told):
            on.run(pixels, [wrong.site])
        assert "check=False" in told.as_code()
    with encoder.steered(Intervention(Neurons(24), "0.resid_post", {3: 2.0})):
        encoder.run(pixels, ["0.resid_post"])


# Pictures as they are at hand


def test_pictures_of_every_form_give_the_same_embeddings(whole, tmp_path):
    encoder = load("hf", whole["hf"])
    arrays = np.random.default_rng(0).integers(0, 256, (3, 40, 50, 3), dtype=np.uint8)
    pictures = [Image.fromarray(array) for array in arrays]
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for picture, path in zip(pictures, paths, strict=True):
        picture.save(path)
    pixels = torch.stack([encoder.preprocess(picture) for picture in pictures])
    expected = encoder.embed_images(pixels)
    for given in (pictures, paths, list(map(str, paths)), arrays, list(arrays), encoder.pixels(pictures)):
        assert torch.equal(encoder.embed_images(given), expected)
    assert torch.equal(encoder.embed_images(iter(paths)), expected)
    for one in (pictures[0], paths[0], str(paths[0]), arrays[0]):
        assert torch.allclose(encoder.embed_images(one), expected[:1], atol=1e-6)
        assert torch.equal(encoder.preprocess(one), pixels[0])
    many = encoder.embed_images(pictures * 30)
    assert torch.allclose(many, expected.repeat(30, 1), atol=1e-6)
    assert torch.equal(encoder.run(pictures, "0.mlp_act")["0.mlp_act"], encoder.run(pixels, ["0.mlp_act"])["0.mlp_act"])


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ([], "no pictures"),
        ([3], "3 is no picture"),
        (np.zeros((2, 3, 32, 32)), r"not float64 of \(3, 32, 32\): of floats from 0 to 1 give \(255 \* x\)"),
        ([torch.zeros(3, 32, 32)], "not float32 of .*: of floats from 0 to 1 give"),
        (torch.zeros(3, 32, 32), r"\(B, 3, 32, 32\) of floats"),
        (torch.zeros(2, 32, 32, 3), r"\(B, 3, 32, 32\) of floats, not \(2, 32, 32, 3\)"),
        (torch.zeros(2, 3, 64, 64), r"\(B, 3, 32, 32\) of floats, not \(2, 3, 64, 64\)"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), "of floats"),
        ("no/such.png", "no/such.png"),
    ],
)
def test_what_are_no_pictures_is_one_sentence(whole, given, sentence):
    with pytest.raises(ValueError, match=sentence):
        load("hf", whole["hf"]).embed_images(given)


def test_a_checkpoint_of_an_older_layout_still_loads(whole, tmp_path):
    """Only what is damaged is refused: more weights than are needed are no reason."""
    folder = shutil.copytree(whole["hf"], tmp_path / "copy")
    weights = load_file(folder / "model.safetensors")
    save_file({**weights, "text_model.embeddings.position_ids": torch.arange(8)[None]}, folder / "model.safetensors")
    assert load("hf", folder).fingerprint == load("hf", whole["hf"]).fingerprint
