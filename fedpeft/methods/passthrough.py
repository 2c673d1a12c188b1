"""``peft:NAME``: every method of the installed peft that changes a model's own layers, with peft's own settings.

    name = "peft:hra"      # any PeftType, in any case
    r = 4                  # whatever HRAConfig knows; without target_modules, all linear modules

What federates is what any method sends: the tensors that train, in float32, bound to the frozen ones by the schema's
digest; never peft's exported state, which for some types shrinks, misses tensors or is twenty times as large. What
their mean means was measured (:mod:`~fedpeft.methods.measure`); of a type newer than the table it is unknown.

Frozen tensors that come from singular values or norms of the base's weights may differ in the last bit between
machines. Clients whose digests differ refuse to train together.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from hashlib import sha256
from typing import Any, ClassVar

import peft
import torch
from peft import PeftConfig, PeftType
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from pydantic import ConfigDict
from torch import nn
from transformers import PreTrainedModel

from fedpeft.errors import FedpeftError, ScenarioError, nearest
from fedpeft.methods.attachment import Attachment
from fedpeft.methods.layout import layout, require_targets
from fedpeft.methods.method import CAUSAL, CLASSIFICATION, Algebra
from fedpeft.methods.peft_method import PeftAttachment, PeftMethod, is_norm

PREFIX = "peft:"

_PROMPT = "it adds to the input instead of changing layers"
_TASKS = "it needs the number of a task with every example"
REFUSED: Mapping[str, str] = {
    "ADALORA": "its tensors shrink on each client by itself; use adalora",
    "CARTRIDGE": f"{_PROMPT}; use prefix_tuning",
    "CPT": f"{_PROMPT}, in the tokens of a given text; use prompt_tuning",
    "MULTITASK_PROMPT_TUNING": f"{_TASKS}; use prompt_tuning",
    "POLY": f"{_TASKS}; use lora",
    "PREFIX_TUNING": f"{_PROMPT}; use prefix_tuning or p_tuning_v2",
    "PROMPT_TUNING": f"{_PROMPT}; use prompt_tuning",
    "P_TUNING": f"{_PROMPT}; use p_tuning",
    "SHADOW": "it works in passes of the whole model only, and training here is on the decoder's",
    "XLORA": "it mixes LoRA adapters that must be there before",
}
"""Types that are not methods of their own here, and why."""

ALGEBRAS: Mapping[Algebra, str] = {
    Algebra.LINEAR: "BEFT C3A FOURIERFT FROD IA3 LN_TUNING MISS SHIRA SUPERTUNING TINYLORA TRAINABLE_TOKENS WAVEFT",
    Algebra.MULTILINEAR: "GLORA GRALORA HIRA LOHA LOKR LORA OSF PVERA RANDLORA VERA",
    Algebra.NORM: "BOFT DEFT DELORA HRA OFT PSOFT ROAD UNILORA VBLORA",
    Algebra.NETWORK: "LILY PEANUT",
}
"""What the mean of a type's parameters means, as measured on both families of models; the others are unknown."""

_CAUSAL_ONLY = ("ADAPTION_PROMPT",)
_NOT_MERGEABLE = ("ADAPTION_PROMPT", "BEFT", "LILY")
_OWN_TARGETS = ("ADAPTION_PROMPT", "IA3", "TRAINABLE_TOKENS")
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "C3A": {"init_weights": True},
    "FOURIERFT": {"init_weights": True},
    "FROD": {"save_projection": False},
    "PVERA": {"save_projection": False},
    "RANDLORA": {"save_projection": False},
    "VERA": {"save_projection": False},
}
"""Settings other than peft's own: a start that changes nothing, and files without what a seed makes again."""

_REMARKS: Mapping[str, tuple[str, ...]] = {
    "PVERA": ("Draws random numbers as it trains: no two runs are alike.",),
}

_FAR = 0.05
"""Distance of the start from the base, relative; the largest of a type that works is 0.01."""

_OURS = ("auto_mapping", "base_model_name_or_path", "inference_mode", "peft_type", "peft_version", "revision")
_OTHERS: Mapping[str, str] = {
    "bias": "biases of the base would change with it",
    "layer_replication": "it makes another base",
    "modules_to_save": "a task's head is trained without it",
    "task_type": "the base and its task decide it",
}


class Passthrough(PeftMethod):
    """A method as peft has it. Its fields are those of peft's configuration class."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    peft_type: ClassVar[str]

    def model_post_init(self, context: Any) -> None:
        """Refuse settings that peft's configuration does not know, or that are not the scenario's to make."""
        kind = PEFT_TYPE_TO_CONFIG_MAPPING[PeftType[self.peft_type]]
        known = {field.name for field in fields(kind)} - {*_OURS, *_OTHERS}
        for name, value in self.settings.items():
            if name in _OTHERS and not (name == "bias" and value == "none"):
                raise ScenarioError(f"method.{name}", value, "not to be set", _OTHERS[name])
            if "dropout" in name and value:
                raise ScenarioError(f"method.{name}", value, "0", "chance in training would make every run another one")
            if name not in known and name not in _OTHERS:
                raise ScenarioError(f"method.{name}", name, f"a field of {kind.__name__}", nearest(name, known))

    def __reduce__(self) -> tuple[Any, ...]:
        # The class is made when it is asked for; another process has to ask too.
        return _again, (self.name, self.settings)

    @property
    def settings(self) -> dict[str, Any]:
        """The fields that were given."""
        return dict(self.model_extra or {})

    def peft_config(self, model: PreTrainedModel) -> PeftConfig:
        """Return peft's configuration; without ``target_modules``, for all linear modules where that makes sense."""
        kind = PEFT_TYPE_TO_CONFIG_MAPPING[PeftType[self.peft_type]]
        settings = {**_DEFAULTS.get(self.peft_type, {}), **self.settings}
        if self.peft_type not in _OWN_TARGETS and any(field.name == "target_modules" for field in fields(kind)):
            settings["target_modules"] = _targets(model, self.peft_type, settings.get("target_modules"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that projections are made again from their seed
            return kind(**settings)

    def attach(self, model: PreTrainedModel, slot: str) -> Attachment:
        """Let peft change the layers, and make sure that it can, and that it leaves the weights.

        Raises
        ------
        ScenarioError
            When peft cannot, with what it says; when nothing would learn; when it has changed the base's weights.
        """
        weights = {name: (parameter, _hash(parameter)) for name, parameter in model.named_parameters()}
        bare = _output(model)
        try:
            attached = PeftAttachment(model, self.peft_config(model), slot)
            start, learns = _output(model), _learns(model, attached)
        except FedpeftError:
            raise
        except Exception as error:  # whatever peft's methods raise
            said = f"{error}".strip().partition("\n")[0]
            raise self._refusal(f"what peft's {self.peft_type} can do here", said) from error
        for name, (parameter, was) in weights.items():
            if _hash(parameter) != was:
                raise self._refusal("a start that leaves the base alone", f"this one changes {name}")
        if (start - bare).norm() > _FAR * bare.norm():
            raise self._refusal("a start near the base", f"peft's {self.peft_type} misreads the base's weights")
        if not learns:
            raise self._refusal("something that learns", f"peft's {self.peft_type} gets no gradient here")
        return attached

    def _refusal(self, expected: str, remedy: str) -> ScenarioError:
        return ScenarioError("method", self.settings, expected, remedy)


def passthrough(name: str) -> type[Passthrough]:
    """Return the method for ``peft:NAME``.

    Raises
    ------
    ScenarioError
        For a name that the installed peft does not have, and for a type that does not federate as it is.
    """
    wanted, known = name.removeprefix(PREFIX).upper(), known_types()
    if wanted not in known:
        raise ScenarioError("method.name", name, f"a method of peft {peft.__version__}", nearest(wanted, known))
    if wanted in REFUSED:
        raise ScenarioError("method.name", name, "a method that changes layers", REFUSED[wanted])
    return _made(wanted)


def known_types() -> list[str]:
    """Return the names of the installed peft's types."""
    return [kind.name for kind in PeftType if kind in PEFT_TYPE_TO_CONFIG_MAPPING]


def algebra_of(peft_type: str) -> Algebra:
    """Return what was measured of a type, :attr:`Algebra.UNKNOWN` when nothing was."""
    return next((algebra for algebra, types in ALGEBRAS.items() if peft_type in types.split()), Algebra.UNKNOWN)


def _again(name: str, settings: dict[str, Any]) -> Passthrough:
    return passthrough(name)(**settings)


@cache
def _made(peft_type: str) -> type[Passthrough]:
    kind = PEFT_TYPE_TO_CONFIG_MAPPING[PeftType[peft_type]]
    algebra = algebra_of(peft_type)
    heuristic = () if algebra is Algebra.LINEAR else ("The mean of parameters is a heuristic: start alike.",)
    members = {
        "__module__": __name__,
        "__doc__": f"peft's {peft_type}, with the fields of {kind.__name__}.",
        "peft_type": peft_type,
        "name": f"{PREFIX}{peft_type.lower()}",
        "algebra": algebra,
        "mergeable": peft_type not in _NOT_MERGEABLE,
        "tasks": frozenset({CAUSAL} if peft_type in _CAUSAL_ONLY else {CAUSAL, CLASSIFICATION}),
        "equation": f"as in peft's {kind.__name__}",
        "source": f"peft {peft.__version__}",
        "sends": "what peft trains, whole",
        "limits": " ".join(["Settings and defects are peft's.", *_REMARKS.get(peft_type, ()), *heuristic]),
    }
    return type(f"Peft{kind.__name__.removesuffix('Config')}", (Passthrough,), members)


def _targets(model: PreTrainedModel, peft_type: str, given: Any) -> Any:
    """Return the names of the modules to change: what was given, or all of those that the type is for."""
    names = {id(module): name for name, module in model.named_modules()}
    if peft_type == "LN_TUNING":
        return given or [names[id(module)] for module in model.modules() if is_norm(module)]
    if peft_type == "BEFT" and not given:  # biases of values
        return [names[id(layer.value)] for layer in layout(model).layers]
    if given in (None, "all-linear") or isinstance(given, list):
        return require_targets(model, given or "all-linear", "method.target_modules")
    return given


def _output(model: PreTrainedModel) -> torch.Tensor:
    with torch.no_grad():
        return _pass(model)


def _learns(model: PreTrainedModel, attached: Attachment) -> bool:
    """Say whether a training pass leaves a gradient: over quantized weights some types fail, or get none."""
    was = model.training
    # Some types draw random numbers in training.
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        _pass(model.train()).square().sum().backward()
    model.train(was)
    learns = any(p.grad is not None and bool(p.grad.any()) for p in attached.parameters.values())
    for parameter in attached.parameters.values():
        parameter.grad = None
    return learns


def _pass(model: PreTrainedModel) -> torch.Tensor:
    # As training reads a language model: the decoder alone, the head apart from it.
    ids = torch.arange(4, device=model.device)[None]
    found: torch.Tensor = getattr(model, model.base_model_prefix)(input_ids=ids)[0]
    return found.float()


def _hash(parameter: nn.Parameter) -> str:
    return sha256(parameter.detach().contiguous().view(torch.uint8).numpy().data).hexdigest()
