"""A tiny Llama, and adapters on it that peft made and saved."""

from pathlib import Path

import torch
from peft import PeftConfig, PeftModel, get_peft_model
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from fedpeft.adapters import Adapter

from .lora import BASE

IDS = torch.tensor([[1, 3, *range(8, 24), 2, 4, 7, 2]])


def tiny(seed: int = 0, dtype: torch.dtype = torch.float32, tied: bool = False) -> LlamaForCausalLM:
    """Return a Llama of two layers whose weights the seed decides."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=48,
            hidden_size=32,
            intermediate_size=56,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=64,
            attention_bias=True,
            tie_word_embeddings=tied,
        )
        model = LlamaForCausalLM(config).to(dtype).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith("bias"):
                    parameter.normal_(0.0, 0.1)
    return model


def logits(model: nn.Module) -> torch.Tensor:
    """Return what a model says about a fixed text, without what a prompt puts before it."""
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits[0, -IDS.shape[1] :]


def trained(config: PeftConfig, seed: int = 1, model: nn.Module | None = None) -> PeftModel:
    """Return a base with an adapter in which every trainable number is random."""
    wrapped = get_peft_model(model or tiny(), config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return wrapped


def saved(config: PeftConfig, folder: Path, seed: int = 1) -> tuple[Adapter, PeftModel]:
    """Return an adapter as peft saved it, and the model it was saved from."""
    wrapped = trained(config, seed)
    wrapped.save_pretrained(folder)
    return Adapter.load(folder, BASE), wrapped
