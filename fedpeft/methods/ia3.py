"""IA3 (Liu et al. 2022, arXiv:2205.05638): keys, values and inner activations, each coordinate scaled, through peft.

    k' = l_k ⊙ k,   v' = l_v ⊙ v,   y = W_2 (l_ff ⊙ f(W_1 x)),   l = 1 at the start

Every change is linear in l - 1, so the mean of scales makes the mean of changes in each place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal, cast

from peft import IA3Config
from peft.tuners.tuners_utils import BaseTunerLayer
from pydantic import Field
from torch import nn
from transformers import PreTrainedModel

from fedpeft.methods.layout import LINEAR, Layer, layout, require_targets
from fedpeft.methods.method import Algebra, Method, register
from fedpeft.methods.peft_method import PeftMethod

Targets = Literal["auto"] | list[str]


@register
class IA3(PeftMethod):
    """Scales on keys, values and inner activations."""

    name: ClassVar[str] = "ia3"
    algebra: ClassVar[Algebra] = Algebra.LINEAR
    mergeable: ClassVar[bool] = True
    rate: ClassVar[float] = 1e-2
    equation: ClassVar[str] = "k' = l_k ⊙ k, v' = l_v ⊙ v, y = W_2 (l_ff ⊙ f(W_1 x))"
    source: ClassVar[str] = "Liu et al. 2022, arXiv:2205.05638"
    sends: ClassVar[str] = "l_k, l_v and l_ff: the widths of keys, values and feed-forward, per layer"
    limits: ClassVar[str] = "Can rescale what the base computes, not add directions; wants larger learning rates."

    targets: Targets = Field("auto", description="Linear modules whose outputs are scaled; auto: keys and values.")
    feedforward: Targets = Field(
        "auto", description="Linear modules whose inputs are scaled; auto: the last of every feed-forward block."
    )

    def peft_config(self, model: PreTrainedModel) -> IA3Config:
        """Return peft's IA3 configuration."""
        outputs = _resolve(model, self.targets, "targets", lambda layer: [layer.key, layer.value])
        inputs = _resolve(model, self.feedforward, "feedforward", lambda layer: [_last(layer)])
        return IA3Config(target_modules=[*outputs, *inputs], feedforward_modules=inputs)

    def private(self, rank: int) -> Method | None:
        """Return the same: scales on top multiply."""
        return self


def _resolve(
    model: PreTrainedModel, targets: Targets, field: str, own: Callable[[Layer], list[nn.Module]]
) -> list[str]:
    """Return names of modules, those of every layer spelt out: ``output.dense`` is two modules of a BERT layer."""
    if targets != "auto":
        return require_targets(model, targets, f"method.{field}")
    names = {id(module): name for name, module in model.named_modules()}
    return [names[id(module)] for layer in layout(model).layers for module in own(layer)]


def _last(layer: Layer) -> nn.Module:
    """Return the linear module that a layer's feed-forward block ends with."""
    linear = [m for m in layer.feed_forward_out.modules() if isinstance(m, (*LINEAR, BaseTunerLayer))]
    # Where peft has wrapped it already, what is inside comes after the wrapper.
    wrapped = [m for m in linear if isinstance(m, BaseTunerLayer)]
    return cast(nn.Module, (wrapped or linear)[-1])
