"""One encoder in several threads and contexts: each sees what it has set itself, and takes away no more than that."""

import threading
from collections.abc import Callable
from contextlib import ExitStack

import pytest
import torch
from torch import nn

from lib.encoders.encoder import Encoder, load_encoder
from steering.cached_forward import CachedForward
from steering.interventions import Intervention, Neurons
from tests.small_hugging_face import hugging_face_folder
from tests.small_models import open_clip_folder


@pytest.fixture(scope="module", params=["clip", "open_clip"])
def encoder(request, tmp_path_factory) -> Encoder:
    folder = tmp_path_factory.mktemp("models") / request.param
    if request.param == "open_clip":
        return load_encoder(f"open_clip:{open_clip_folder(folder)}", device="cpu")
    return load_encoder(f"hf:{hugging_face_folder(folder, 'clip')}", device="cpu")


@pytest.fixture
def pixels() -> torch.Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def push(encoder: Encoder, site: str, value: float = 9.0) -> Intervention:
    return Intervention(Neurons(encoder.width(site)), site, {3: value}, "add")


def n_hooks(encoder: Encoder) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in encoder.model.modules())


def at_once(*works: Callable[[], object], times: int = 25) -> None:
    """Run the works again and again, each in a thread of its own; raises the first error of any."""
    errors: list[BaseException] = []

    def repeat(work: Callable[[], object]) -> None:
        try:
            for _ in range(times):
                work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=repeat, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def same(got: torch.Tensor, wanted: torch.Tensor) -> None:
    assert torch.allclose(got, wanted, atol=1e-5)


def test_threads_that_read_steer_and_rerun_at_once_each_get_their_own_results(encoder, pixels):
    edits = [push(encoder, "0.resid_post"), push(encoder, "1.attn_out"), push(encoder, "1.mlp_act")]
    sites = ["1.resid_post", "2.mlp_out", "proj"]
    plain, hooks = encoder.run(pixels, sites), n_hooks(encoder)
    variants = [(), *((edit,) for edit in edits)]
    wanted = CachedForward(encoder, "proj", pixels, variants).values(variants)

    def read():
        for site, value in encoder.run(pixels, sites).items():
            same(value, plain[site])

    def read_early():
        same(encoder.run(pixels, ["0.attn_out", "1.resid_post"])["1.resid_post"], plain["1.resid_post"])

    def steer(i: int):
        with encoder.steered(edits[i]):
            same(encoder.run(pixels, ["proj"])["proj"], wanted[1 + i])

    def rerun():
        same(CachedForward(encoder, "proj", pixels, variants).values(variants), wanted)

    at_once(read, read_early, lambda: steer(0), lambda: steer(1), lambda: steer(2), rerun, rerun)
    assert n_hooks(encoder) == hooks
    assert torch.equal(encoder.run(pixels, ["proj"])["proj"], plain["proj"])


def test_a_steered_thread_is_alone_in_being_steered(encoder, pixels):
    plain, seen = encoder.run(pixels, ["proj"])["proj"], {}
    with encoder.steered(push(encoder, "1.resid_post"), push(encoder, "proj")):
        thread = threading.Thread(
            target=lambda: seen.update(proj=encoder.run(pixels, ["proj"])["proj"], key=encoder.fingerprint)
        )
        thread.start()
        thread.join()
        assert not torch.equal(encoder.run(pixels, ["proj"])["proj"], plain)
    assert torch.equal(seen["proj"], plain)
    assert seen["key"] == encoder.fingerprint


@pytest.mark.parametrize("sites", [("1.resid_post", "1.resid_post"), ("proj", "proj"), ("0.mlp_act", "proj")])
@pytest.mark.parametrize("left_first", [0, 1])
def test_contexts_left_in_any_order_take_away_what_they_added(encoder, pixels, sites, left_first):
    edits = [push(encoder, sites[0]), push(encoder, sites[1], -4.0)]
    plain, hooks = encoder.run(pixels, encoder.sites), n_hooks(encoder)
    contexts = [encoder.steered(edit) for edit in edits]
    for context in contexts:
        context.__enter__()
    contexts[left_first].__exit__(None, None, None)
    with_the_other = encoder.run(pixels, encoder.sites)
    contexts[1 - left_first].__exit__(None, None, None)
    with encoder.steered(edits[1 - left_first]):
        expected = encoder.run(pixels, encoder.sites)
    assert all(torch.equal(with_the_other[site], value) for site, value in expected.items())
    assert not torch.equal(expected["proj"], plain["proj"])
    assert all(torch.equal(value, plain[site]) for site, value in encoder.run(pixels, encoder.sites).items())
    assert (n_hooks(encoder), encoder.steering) == (hooks, ())


def test_the_same_intervention_twice_acts_twice_and_leaves_one_by_one(encoder, pixels):
    edit = push(encoder, "1.resid_post")
    with encoder.steered(edit):
        once = encoder.run(pixels, "1.resid_post")["1.resid_post"]
        with encoder.steered(edit):
            twice = encoder.run(pixels, "1.resid_post")["1.resid_post"]
        assert torch.equal(encoder.run(pixels, "1.resid_post")["1.resid_post"], once)
    assert torch.allclose(twice[..., 3] - once[..., 3], torch.full_like(once[..., 3], 9.0), atol=1e-4)


def test_a_context_that_another_thread_leaves_ends(encoder, pixels):
    plain, context = encoder.run(pixels, ["proj"])["proj"], ExitStack()
    context.enter_context(encoder.steered(push(encoder, "1.resid_post")))
    thread = threading.Thread(target=context.close)
    thread.start()
    thread.join()
    assert torch.equal(encoder.run(pixels, ["proj"])["proj"], plain)


def test_what_accelerate_puts_on_blocks_is_used_and_stays(encoder, pixels):
    from accelerate.hooks import ModelHook, add_hook_to_module, remove_hook_from_module

    class Counting(ModelHook):
        calls = 0

        def pre_forward(self, module, *args, **options):
            Counting.calls += 1
            return args, options

    edit = push(encoder, "0.resid_post")
    wanted = CachedForward(encoder, "proj", pixels, [(edit,)]).values([(edit,)])
    hooked = [*encoder.tower.blocks, encoder.model.visual if hasattr(encoder.model, "visual") else encoder.tower.vision]
    try:
        for module in hooked:
            add_hook_to_module(module, Counting())
        forwards = [module.forward for module in hooked]
        assert torch.equal(CachedForward(encoder, "proj", pixels, [(edit,)]).values([(edit,)]), wanted)
        assert [module.forward for module in hooked] == forwards
        assert Counting.calls > len(encoder.tower.blocks)
    finally:
        for module in hooked:
            remove_hook_from_module(module)


def test_what_lies_behind_the_blocks_is_a_copy_that_shares_the_weights(encoder, pixels):
    tower = encoder.tower.after_blocks(lambda: torch.zeros(1, encoder.n_tokens, 24))
    before = dict(encoder.model.named_modules())
    assert tower.model is not encoder.model
    assert {p.data_ptr() for p in tower.model.parameters()} == {p.data_ptr() for p in encoder.model.parameters()}
    ran = []
    handles = [block.register_forward_hook(lambda *_: ran.append(1)) for block in encoder.tower.blocks]
    tower.embed_images(pixels[:1])
    for handle in handles:
        handle.remove()
    assert not ran
    assert all(before[name] is module for name, module in encoder.model.named_modules())
    assert all(type(block) is type(encoder.tower.blocks[0]) for block in encoder.tower.blocks)


class Broken(Neurons):
    """A dictionary that cannot encode."""

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("within the pass")


def test_an_error_in_one_threads_pass_is_not_seen_by_another(encoder, pixels):
    def fail():
        with pytest.raises(ValueError, match="are \\(B, 3, 32, 32\\)"):
            encoder.run(pixels[0], ["0.resid_post"])
        broken = Intervention(Broken(encoder.d_model), "0.resid_post", {0: 1.0})
        with pytest.raises(RuntimeError, match="within the pass"), encoder.steered(broken):
            encoder.run(pixels, ["0.resid_post"])

    plain = encoder.run(pixels, ["2.resid_post"])["2.resid_post"]
    at_once(fail, lambda: same(encoder.run(pixels, ["2.resid_post"])["2.resid_post"], plain))
    assert isinstance(encoder, nn.Module)
    assert encoder.steering == ()
