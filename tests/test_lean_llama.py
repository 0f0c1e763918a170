"""The lean pass of a Llama is transformers' own, token for token; models it does not know keep transformers' pass."""

import pytest
import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode

from lib.steering.decoding import Decoder, OwnPass
from lib.steering.lean_llama import LeanLlama, lean_llama

TEXT = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
LLAMA_3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
KNOWN = {
    "llama": {},
    "every head has its keys": {"num_key_value_heads": 4},
    "one layer": {"num_hidden_layers": 1},
    "wide heads": {"head_dim": 16},
    "positions of llama 3": {"rope_parameters": LLAMA_3_ROPE},
    "mistral": {"model_type": "mistral", "sliding_window": None},
}


def text_model(model_type: str = "llama", **settings):
    """A text model of random weights so large that attention looks at single tokens."""
    torch.manual_seed(0)
    model = transformers.AutoModel.from_config(transformers.AutoConfig.for_model(model_type, **{**TEXT, **settings}))
    for parameter in model.parameters():
        noise = torch.randn_like(parameter)
        parameter.data.copy_(noise / parameter.shape[-1] ** 0.5 if parameter.ndim > 1 else 1 + 0.3 * noise)
    return model.eval().requires_grad_(False)


def read(one, prefix: torch.Tensor, parts: list[torch.Tensor]) -> list[torch.Tensor]:
    """Last hidden states of a pass which reads a prefix once and then the parts, of two steps on all rows but row 1."""
    memory = one.memory([], rows=1, room=prefix.shape[1])
    one.last_hidden(prefix, memory)
    memory = one.memory(memory.keys_values(), rows=len(parts[0]), room=30)
    states = [one.last_hidden(parts[0], memory)]
    memory.keep([0, 2, 3, 4])
    return states + [one.last_hidden(part[[0, 2, 3, 4]], memory) for part in parts[1:]]


@pytest.fixture
def texts():
    generator = torch.Generator().manual_seed(1)
    prefix = torch.randn(1, 4, 32, generator=generator)
    return prefix, [torch.randn(5, n, 32, generator=generator) for n in (7, 1, 1)]


@pytest.mark.parametrize("settings", KNOWN.values(), ids=KNOWN)
def test_hidden_states_are_those_of_transformers(settings, texts):
    model = text_model(**settings)
    lean = lean_llama(model)
    assert isinstance(lean, LeanLlama)
    for found, expected in zip(read(lean, *texts), read(OwnPass(model), *texts), strict=True):
        assert torch.allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize("tokens", [1, 9, 21])
def test_hidden_states_do_not_depend_on_how_many_rows_go_together(texts, monkeypatch, tokens):
    lean = lean_llama(text_model())
    whole = read(lean, *texts)
    monkeypatch.setattr("lib.steering.lean_llama._TOKENS_AT_ONCE", tokens)
    for found, expected in zip(read(lean, *texts), whole, strict=True):
        assert torch.allclose(found, expected, atol=1e-5)


def test_two_memories_at_a_time_do_not_disturb_each_other(texts):
    lean, (_, [long, *_]) = lean_llama(text_model()), texts
    alone = lean.last_hidden(long, lean.memory([], 5, 9))
    one, other = lean.memory([], 5, 9), lean.memory([], 5, 9)
    lean.last_hidden(long[:, :4], one)
    lean.last_hidden(-long, other)
    assert torch.allclose(lean.last_hidden(long[:, 4:], one), alone, atol=1e-5)


def test_weights_that_change_are_followed(texts):
    model = text_model()
    lean = lean_llama(model)
    model.layers[1].mlp.up_proj.weight.mul_(3)
    for found, expected in zip(read(lean, *texts), read(OwnPass(model), *texts), strict=True):
        assert torch.allclose(found, expected, atol=2e-5)


def test_the_last_layer_computes_no_more_than_keys_and_values_of_earlier_positions():
    def products(n_layers: int) -> int:
        lean = lean_llama(text_model(num_hidden_layers=n_layers))
        with FlopCounterMode(display=False) as counter:
            lean.last_hidden(torch.randn(2, 20, 32), lean.memory([], 2, 20))
        return sum(count for name, count in counter.get_flop_counts()["Global"].items() if "mm" in str(name))

    keys_and_values, others = 2 * 32 * 16, 32 * 32 + 2 * 32 * 64  # weights; torch does not count what is added in place
    assert products(1) == 2 * 2 * (20 * keys_and_values + others)
    assert products(3) == products(1) + 2 * 2 * 2 * 20 * (keys_and_values + others)


UNKNOWN = {
    "a sliding window": {"model_type": "mistral", "sliding_window": 8},
    "biases of the attention": {"attention_bias": True},
    "biases of the MLP": {"mlp_bias": True},
    "another activation": {"hidden_act": "gelu"},
    "another model": {"model_type": "qwen2"},
}


@pytest.mark.parametrize("settings", UNKNOWN.values(), ids=UNKNOWN)
def test_a_model_with_something_else_keeps_the_pass_of_transformers(settings):
    model = text_model(**settings)
    assert lean_llama(model) is None
    assert isinstance(Decoder(model, None, model.embed_tokens, []).language, OwnPass)


def test_lower_precision_keeps_the_pass_of_transformers():
    assert lean_llama(text_model().half()) is None
    assert lean_llama(text_model().bfloat16()) is None


def test_a_model_on_several_devices_keeps_the_pass_of_transformers():
    from accelerate import dispatch_model

    model = text_model()
    places = {"": "cpu"}
    assert lean_llama(dispatch_model(model, places, force_hooks=True)) is None


def test_a_changed_linear_module_keeps_the_pass_of_transformers():
    class Adapted(torch.nn.Linear):
        pass

    model = text_model()
    model.layers[2].mlp.down_proj.__class__ = Adapted
    assert lean_llama(model) is None


def test_another_computation_of_transformers_is_noticed(monkeypatch):
    model = text_model()
    mlp = model.layers[0].mlp
    monkeypatch.setattr(mlp, "forward", lambda x: 1.01 * type(mlp).forward(mlp, x))
    with pytest.warns(UserWarning, match="answers are right, but slower; install the version"):
        assert lean_llama(model) is None
