"""The memory counted from shapes is what a real model takes."""

import pytest
import torch
from torch import nn

from earwitness.encoders.ced import CED, CEDConfig
from earwitness.errors import ConfigError
from earwitness.system.decoder import LoraConfig, enable_checkpointing
from earwitness_lab.reproduce.memory import (
    GIB,
    LANGUAGE_MODELS,
    Counted,
    Plan,
    activation_bytes,
    cache_bytes,
    captioning_bytes,
    count,
    language_model,
    largest_batch,
    training_bytes,
    weight_bytes,
)

TINY = {
    "vocab_size": 300,
    "hidden_size": 128,
    "intermediate_size": 320,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "head_dim": 32,
    "tie_word_embeddings": True,
}
KINDS = {
    "llama": {"model_type": "llama", "num_key_value_heads": 4, **TINY},
    "grouped": {"model_type": "llama", "num_key_value_heads": 2, **TINY},
    "qwen3": {"model_type": "qwen3", "num_key_value_heads": 2, **TINY},
}


def tuned(plan: Plan):
    from peft import LoraConfig as PeftLora
    from peft import get_peft_model

    torch.manual_seed(0)
    base = language_model(plan.model, "cpu").bfloat16().requires_grad_(False)
    lora = plan.lora
    settings = PeftLora(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.targets),
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(base, settings)
    if plan.checkpointing:
        enable_checkpointing(model)
    return model.train()


def kept_by_autograd(model: nn.Module, plan: Plan, batch: int) -> int:
    """Bytes of distinct storages, weights left out, that the blocks keep for the backward pass."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    x = torch.randn(batch, plan.tokens, plan.model["hidden_size"], dtype=torch.bfloat16)
    mask = torch.ones(batch, plan.tokens, dtype=torch.long)
    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", dtype=torch.bfloat16),
    ):
        out = model(
            inputs_embeds=x.requires_grad_(), attention_mask=mask, use_cache=False, logits_to_keep=1
        )
    assert out.logits.requires_grad
    return sum(t.untyped_storage().nbytes() for place, t in kept.items() if place not in weights)


@pytest.mark.parametrize("kind", KINDS)
def test_activations_of_a_step_are_what_autograd_keeps(kind):
    plan = Plan(KINDS[kind])
    found = kept_by_autograd(tuned(plan), plan, batch=8)
    assert activation_bytes(plan, 8) == pytest.approx(found, rel=0.15)


def test_checkpointing_keeps_the_input_of_each_block():
    """One block more costs its input; what one block keeps while it is computed again comes on
    top.
    """
    found = []
    for layers in (4, 5):
        plan = Plan({**KINDS["llama"], "num_hidden_layers": layers}, checkpointing=True)
        found.append((kept_by_autograd(tuned(plan), plan, 8), activation_bytes(plan, 8)))
    assert found[1][0] - found[0][0] == pytest.approx(found[1][1] - found[0][1], rel=0.15)
    whole = Plan({**KINDS["llama"], "num_hidden_layers": 1})
    one_block = activation_bytes(whole, 8)
    assert found[0][1] == pytest.approx(found[0][0] + one_block, rel=0.15)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_gradients_and_optimizer_states_are_exact(kind):
    plan = Plan(KINDS[kind], prefix_weights=0, audio_weights=0)
    model = tuned(plan)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    for parameter in trained:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    states = [v for state in optimizer.state.values() for k, v in state.items() if k != "step"]
    found = {
        "frozen": size(p for p in model.parameters() if not p.requires_grad),
        "trained": size(trained),
        "gradients": size(p.grad for p in trained),
        "optimizer": size(states),
    }
    assert weight_bytes(plan, count(language_model(plan.model), plan.lora)) == found


def size(tensors) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("llama-2-7b", 6_738_415_616),
        ("tinyllama-1.1b", 1_100_048_384),
        ("qwen3-1.7b", 1_720_574_976),
        ("qwen3-0.6b", 596_049_920),
        ("smollm2-360m", 361_821_120),
    ],
)
def test_shapes_are_those_of_the_published_models(name, weights):
    counted = count(language_model(LANGUAGE_MODELS[name]), LoraConfig())
    assert counted.linear + counted.other == weights


def test_lora_of_the_paper_on_llama_2_has_four_million_weights():
    counted = count(language_model(LANGUAGE_MODELS["llama-2-7b"]), LoraConfig())
    assert counted.lora == 32 * 2 * 8 * (4096 + 4096) == 4_194_304


def test_the_encoder_counted_is_ced_base():
    with torch.device("meta"):
        encoder = CED(CEDConfig(outputdim=0))
    assert sum(p.numel() for p in encoder.parameters()) == pytest.approx(
        Plan({}).audio_weights, rel=0.01
    )


@pytest.mark.parametrize("kind", KINDS)
def test_the_cache_is_what_transformers_fills(kind):
    plan = Plan(KINDS[kind], audio_tokens=5, prompt_tokens=3)
    model = language_model(plan.model, "cpu").bfloat16().eval()
    x = torch.randn(2 * 3, 8 + 4, plan.model["hidden_size"], dtype=torch.bfloat16)
    with torch.no_grad():
        cache = model(inputs_embeds=x, use_cache=True).past_key_values
    found = sum(size((layer.keys, layer.values)) for layer in cache.layers)
    assert cache_bytes(plan, 2, 3, 4) == found


def test_the_largest_batch_is_the_last_that_fits():
    plan = Plan(LANGUAGE_MODELS["smollm2-360m"])
    counted = Counted(10**8, 10**7, 10**5)
    best = largest_batch(lambda batch: training_bytes(plan, counted, batch), 8.0 * GIB)
    room = 8 * GIB * 0.9 - GIB
    assert sum(training_bytes(plan, counted, best).values()) <= room
    assert sum(training_bytes(plan, counted, best + 1).values()) > room
    assert largest_batch(lambda batch: {"weights": 9.0 * GIB}, 8.0 * GIB) == 0


def test_four_bits_and_fewer_beams_need_less():
    plan, counted = Plan(LANGUAGE_MODELS["llama-2-7b"]), Counted(6_476_005_376, 262_410_240, 0)
    packed = Plan(LANGUAGE_MODELS["llama-2-7b"], quantized=True)
    assert weight_bytes(packed, counted)["frozen"] < 0.4 * weight_bytes(plan, counted)["frozen"]
    four, one = (captioning_bytes(plan, counted, 8, beams)["cache"] for beams in (4, 1))
    assert four == 8 * one


def test_an_unknown_kind_of_model_is_refused():
    with pytest.raises(ConfigError, match="'lama' is not one"):
        language_model({"model_type": "lama"})
