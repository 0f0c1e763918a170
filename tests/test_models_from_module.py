"""Any module is an encoder: values at its sites are those of plain hooks, and all of lib works on it."""

from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from lib import from_module
from lib.activations.extraction import extract
from lib.encoders.own_module import Layout
from lib.features.table import FeatureTable
from lib.images.image_set import ImageSet
from lib.images.memory import MemorySource
from lib.sae.model import SAE, SAEConfig
from steering.cached_forward import CachedForward
from steering.interventions import Intervention, Neurons


def to_tensor(image: Image.Image, size: tuple[int, int]) -> torch.Tensor:
    """Picklable, as worker processes need it: (3, h, w) between zero and one."""
    pixels = np.asarray(image.convert("RGB").resize(size[::-1]), np.float32) / 255
    return torch.from_numpy(pixels).permute(2, 0, 1)


class Residual(nn.Module):
    """A convolution added to its input, in place, as torchvision's ResNets do."""

    def __init__(self, width: int):
        super().__init__()
        self.conv, self.act = nn.Conv2d(width, width, 3, padding=1), nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.conv(x)
        out += x
        return self.act(out)


class ConvNet(nn.Module):
    """Maps of 8 channels and 3 x 4 positions."""

    def __init__(self):
        super().__init__()
        self.stem, self.blocks = nn.Conv2d(3, 8, 8, stride=8), nn.ModuleList(Residual(8) for _ in range(3))
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((2, 3)))


SITES = {f"{i}.resid_post": f"blocks.{i}" for i in range(3)}
CONV_SITES = {**SITES, "1.mlp_act": "blocks.1.conv"}  # which is changed in place afterwards


def vit() -> nn.Module:
    import timm

    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=24, depth=3, num_heads=2)


def pooled(model: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    return model.forward_head(model.forward_features(pixels), pre_logits=True)


def make(kind: str, **given):
    torch.manual_seed(0)
    if kind == "timm":
        model = vit()
        sites = {**SITES, **{f"{i}.mlp_act": f"blocks.{i}.mlp.act" for i in range(3)}}
        return from_module(
            model, sites, partial(to_tensor, size=(32, 32)), partial(pooled, model), device="cpu", **given
        )
    return from_module(ConvNet(), CONV_SITES, partial(to_tensor, size=(24, 32)), device="cpu", **given)


@pytest.fixture(scope="module", params=["timm", "conv"])
def encoder(request):
    return make(request.param)


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    noise = np.random.default_rng(0).integers(0, 256, (6, 40, 50, 3), dtype=np.uint8)
    return [Image.fromarray(picture) for picture in noise]


@torch.no_grad()
def by_definition(encoder, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
    """Each site by a hook of its own in a pass of its own; of a map the positions row by row, one after the other."""
    values = {}
    for site in encoder.sites[:-1]:
        layer, kind = site.split(".")
        convolution = isinstance(encoder.model, ConvNet)
        name = {"resid_post": "", "mlp_act": ".conv" if convolution else ".mlp.act"}[kind]
        kept: list[torch.Tensor] = []
        module = encoder.model.get_submodule(f"blocks.{layer}{name}")
        handle = module.register_forward_hook(lambda *given, kept=kept: kept.append(given[2].clone()))
        encoder.model(pixels)
        handle.remove()
        values[site] = kept[0]
        if convolution:
            rows = [kept[0][:, :, y, x] for y in range(3) for x in range(4)]
            values[site] = torch.stack(rows, dim=1)
    return values


def test_values_at_a_site_are_the_modules_output(encoder, pictures):
    pixels = encoder.pixels(pictures)
    expected, values = by_definition(encoder, pixels), encoder.run(pixels, encoder.sites)
    assert list(values) == encoder.sites
    for site, value in expected.items():
        assert torch.equal(values[site], value), site
        assert value.shape[1:] == (encoder.n_tokens, encoder.width(site))
    with torch.no_grad():
        convolution = isinstance(encoder.model, ConvNet)
        embedding = encoder.model(pixels) if convolution else pooled(encoder.model, pixels)
    assert torch.equal(values["proj"], embedding)
    assert encoder.d_embed == embedding.shape[1]


def test_tokens_are_positions_and_what_stands_before_them():
    assert make("timm").token_kinds == ("cls", *["spatial"] * 16)
    conv = make("conv")
    assert (conv.grid, conv.token_kinds, conv.has_cls) == ((3, 4), ("spatial",) * 12, False)
    assert make("timm", layout=Layout(prefix=["register"], grid=(2, 8))).grid == (2, 8)
    assert make("timm", layout=Layout(prefix=["cls", "register"], grid=(3, 5))).positions("register").tolist() == [1]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["timm", "conv"])
def test_gradients_reach_every_site(kind, dtype, pictures):
    encoder = make(kind, dtype=dtype)
    pixels = encoder.pixels(pictures[:2]).requires_grad_()
    values = encoder.run(pixels, encoder.sites)
    inner = encoder.sites[:-1]
    gradients = torch.autograd.grad(values["proj"].square().sum(), [values[site] for site in inner])
    assert all(gradient.abs().sum() > 0 for gradient in gradients)


def test_an_intervention_steers_it_and_looks_give_the_same(encoder, pictures):
    pixels = encoder.pixels(pictures[:2])
    first = encoder.positions("spatial")[:1]
    mask = torch.zeros(encoder.n_tokens, dtype=torch.bool).index_fill(0, first, True)
    edit = Intervention(Neurons(encoder.width("1.resid_post")), "1.resid_post", {3: 7.0}, tokens=mask)
    before = encoder.run(pixels, ["1.resid_post", "proj"])
    with encoder.steered(edit):
        after = encoder.run(pixels, ["1.resid_post", "2.resid_post", "proj"])
    wanted = before["1.resid_post"].clone()
    wanted[:, first, 3] = 7.0
    assert torch.equal(after["1.resid_post"], wanted)
    layout = wanted.transpose(1, 2).unflatten(2, encoder.grid) if isinstance(encoder.model, ConvNet) else wanted
    resumed = encoder.model.blocks[2](layout)
    resumed = resumed.flatten(2).transpose(1, 2) if isinstance(encoder.model, ConvNet) else resumed
    assert torch.allclose(after["2.resid_post"], resumed, atol=1e-6)
    looks = CachedForward(encoder, "proj", pixels, [(edit,), ()]).values([(edit,), ()])
    assert torch.equal(looks, torch.stack([after["proj"], before["proj"]]))


def test_its_activations_are_stored_and_its_features_tabled(encoder, pictures, tmp_path):
    source = MemorySource(pictures)
    images = ImageSet(source, source.title)
    store = extract(encoder, images, ["1.resid_post"], "spatial", tmp_path, dtype="float32", progress=False)[
        "1.resid_post"
    ]
    expected = by_definition(encoder, encoder.pixels(pictures))["1.resid_post"][:, encoder.positions("spatial")]
    assert torch.equal(store[:].view(expected.shape), expected)
    torch.manual_seed(0)
    sae = SAE(SAEConfig(kind="topk", width=20, k=3), store.d)
    table = FeatureTable.compute(encoder, sae, images, "1.resid_post", "spatial", progress=False)
    codes = sae.encode(expected)
    assert torch.allclose(table.max, codes.amax((0, 1)), atol=1e-5)


class Scaled(ConvNet):
    """Its scale is in no state_dict."""

    def __init__(self, scale: float):
        super().__init__()
        self.register_buffer("scale", torch.tensor(scale), persistent=False)


TO_TENSOR = partial(to_tensor, size=(24, 32))


def fingerprint(embed=None, sites=SITES, model=None, transform=TO_TENSOR) -> str:
    torch.manual_seed(0)
    return from_module(model or ConvNet(), sites, transform, embed, device="cpu").fingerprint


def test_the_fingerprint_tells_models_sites_transforms_and_embeddings_apart():
    torch.manual_seed(0)
    model, heads = ConvNet(), [nn.Linear(5, 5) for _ in range(6)]
    at = partial(fingerprint, model=model)
    assert at() == at() == fingerprint()  # the same weights, made twice
    found = [
        *(at(), at(sites=CONV_SITES), at(transform=lambda image: 2 * TO_TENSOR(image))),
        *(at(lambda x: model(x)[:, :2]), at(lambda x: model(x)[:, :3])),
        *(at(partial(lambda x, n: model(x)[:, :n], n=n)) for n in (2, 3)),
        *(at(nn.Sequential(model, head)) for head in heads[:2]),
        *(at(lambda x, head=head: head(model(x))) for head in heads[2:4]),
        *(at(nn.Sequential(model, head).forward) for head in heads[4:]),
        *(fingerprint(model=Scaled(scale)) for scale in (1.0, 2.0)),
    ]
    assert len(set(found)) == len(found)


def test_the_fingerprint_follows_a_head_beside_the_model_exchanged_weights_and_another_transform():
    torch.manual_seed(0)
    model, head = ConvNet(), nn.Linear(5, 5)
    encoder = from_module(model, SITES, TO_TENSOR, lambda x: head(model(x)), device="cpu")
    found = [encoder.fingerprint]
    with torch.no_grad():
        head.bias.add_(1)
    found.append(encoder.fingerprint)
    model.head.weight.data = model.head.weight.data.flip(0)  # the same address may be used again
    found.append(encoder.fingerprint)
    model.head.weight.data[:] = model.head.weight.data.flip(1)
    found.append(encoder.fingerprint)
    encoder.transform = lambda image: 2 * TO_TENSOR(image)
    found.append(encoder.fingerprint)
    assert len(set(found)) == 5


GLOBAL_MODEL, GLOBAL_HEAD, GLOBAL_SCALE = ConvNet(), nn.Linear(5, 5), 1.0


def by_names_of_its_module(x):
    return GLOBAL_HEAD(GLOBAL_MODEL(x)) * GLOBAL_SCALE


class Slotted:
    """An embedding whose state lies in slots."""

    __slots__ = ("n",)

    def __init__(self, n: int) -> None:
        self.n = n

    def __call__(self, x):
        return GLOBAL_MODEL(x) * self.n


def test_the_fingerprint_tells_what_an_embedding_reads_of_its_module_and_what_its_slots_and_slices_are(monkeypatch):
    at = partial(fingerprint, model=GLOBAL_MODEL)
    found = [at(by_names_of_its_module)]
    assert found[0] == at(by_names_of_its_module)
    with torch.no_grad():
        GLOBAL_HEAD.bias.add_(1)
    found.append(at(by_names_of_its_module))
    monkeypatch.setitem(globals(), "GLOBAL_SCALE", 7.0)
    found.append(at(by_names_of_its_module))
    for part in (slice(0, 4), slice(1, 5), range(4), range(1, 5), np.int64(2), np.int64(4)):
        found.append(at(lambda x, part=part: GLOBAL_MODEL(x)[:, np.r_[part]]))
    found += [at(Slotted(2)), at(Slotted(5))]
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_weights_of_another_type_take_the_pixels_in_theirs(dtype, pictures):
    encoder = from_module(ConvNet().to(dtype), SITES, TO_TENSOR, device="cpu")
    pixels = encoder.pixels(pictures[:2]).requires_grad_()
    values = encoder.run(pixels, encoder.sites)
    assert {value.dtype for value in values.values()} == {torch.float32}
    torch.testing.assert_close(values["proj"], encoder.model(pixels.to(dtype)).float(), rtol=1e-6, atol=1e-6)
    assert torch.autograd.grad(values["proj"].sum(), pixels)[0].abs().sum() > 0


def test_what_is_no_module_is_one_sentence():
    with pytest.raises(ValueError, match="an encoder is made of a module of torch, not of 'vit'"):
        from_module("vit", SITES, TO_TENSOR)


class Odd(ConvNet):
    def forward(self, x):
        return {"maps": self.stem(x)}


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"sites": {}}, "needs a site"),
        ({"sites": ["blocks.0"]}, "needs a site: write {"),
        ({"sites": {"0.resid_post": "blocks.9"}}, r"no module 'blocks\.9'; it has stem, blocks"),
        ({"sites": {"0.resid_post": 3}}, "no module 3"),
        ({"sites": {"proj": "head"}}, "proj is what embed= gives"),
        ({"sites": {"0.resid": "stem"}}, "unknown site '0.resid'"),
        ({"sites": {"0.resid_post": "head"}}, r"head \(0.resid_post\) gives \(1, 5\)"),
        ({"transform": None}, "and None does not"),
        ({"model": Odd()}, "runs 0 times in a pass"),
        ({"model": Odd(), "sites": {"0.resid_post": "stem"}}, "the model's output is no embedding"),
        ({"embed": lambda x: [x]}, "runs 0 times in a pass"),
        ({"transform": lambda image: image}, "add ToTensor"),
        ({"transform": lambda image: torch.rand(3, 24, 32)}, "transform= is random"),
        ({"sites": {"0.resid_post": "stem", "1.resid_post": "pool"}}, "different grids of tokens"),
        ({"sites": {"0.resid_post": "pool"}, "embed": None}, "runs 0 times in a pass"),
    ],
)
def test_what_is_no_encoder_is_one_sentence(changed, sentence):
    model = changed.pop("model", ConvNet())
    model.pool = nn.AvgPool2d(3)
    transform = partial(to_tensor, size=(24, 32))
    embed = (lambda x: model.pool(model.stem(x)).mean((2, 3))) if "pool" in str(changed) else None
    given = {"sites": SITES, "transform": transform, "embed": embed, **changed}
    with pytest.raises(ValueError, match=sentence):
        from_module(model, device="cpu", **given)


class ChannelsLast(ConvNet):
    """Its first map is (B, h, w, d), as in Swin."""

    def __init__(self):
        super().__init__()
        self.turned = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x + self.turned(self.stem(x).permute(0, 2, 3, 1)).mean())


@pytest.mark.parametrize("layout", [None, Layout(channels_last=True)])
def test_maps_whose_channels_come_last_are_told_by_their_squares(layout, pictures):
    model = ChannelsLast()
    encoder = from_module(
        model, {"0.resid_post": "turned"}, partial(to_tensor, size=(32, 32)), layout=layout, device="cpu"
    )
    assert (encoder.grid, encoder.width("0.resid_post")) == ((4, 4), 8)
    pixels = encoder.pixels(pictures)
    with torch.no_grad():
        expected = model.stem(pixels).flatten(2).transpose(1, 2)
    assert torch.equal(encoder.run(pixels, "0.resid_post")["0.resid_post"], expected)


@pytest.mark.parametrize(
    ("layout", "sentence"),
    [
        (Layout(grid=(5, 5)), r"17 tokens are not 1 before the patches and a grid of \(5, 5\)"),
        (Layout(prefix=["register", "cls"]), "'cls', which comes first"),
        (Layout(prefix=["cls", "register"]), "give grid="),
    ],
)
def test_tokens_that_do_not_fit_are_one_sentence(layout, sentence):
    with pytest.raises(ValueError, match=sentence):
        make("timm", layout=layout)


def test_a_site_that_was_not_named_is_refused_with_those_that_were():
    with pytest.raises(ValueError, match=r"no site 0\.mlp_out: ConvNet has the sites 0\.resid_post, 1\.mlp_act"):
        make("conv").site("0.mlp_out")
