"""LoRA (Hu et al. 2021, arXiv:2106.09685), through peft.

    h = W x + s B A x,   A: [r, in] random,  B: [out, r] zero,   s = alpha / r   (rsLoRA: alpha / sqrt r)

DoRA (Liu et al. 2024, arXiv:2402.09353) learns the length of each row of the changed weight as well:

    h = m (W + s B A) x / ||W + s B A||_row

Starts that take singular vectors out of W (PiSSA, OLoRA and their kin) are refused: they leave another W behind, and
the base is one object for everybody.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, cast

from peft import LoraConfig
from pydantic import Field, PrivateAttr, field_validator
from torch import nn
from transformers import PreTrainedModel

from fedpeft.adapters.schema import Schema, Vector
from fedpeft.errors import ScenarioError
from fedpeft.methods.attachment import Attachment
from fedpeft.methods.layout import base_parameters, features, linears, require_rank, require_targets
from fedpeft.methods.method import Algebra, Method, register
from fedpeft.methods.peft_method import PeftMethod
from fedpeft.methods.shares import outer_share

_OF_THE_BASE = ("corda", "eva", "loftq", "lora_ga", "mica", "olora", "pissa")


@register
class Lora(PeftMethod):
    """Low-rank changes to linear layers."""

    name: ClassVar[str] = "lora"
    algebra: ClassVar[Algebra] = Algebra.MULTILINEAR
    mergeable: ClassVar[bool] = True
    joins: ClassVar[bool] = True
    second: ClassVar[str] = "lora_B"
    equation: ClassVar[str] = "h = W x + s B A x, s = α/r (rsLoRA: α/√r)"
    source: ClassVar[str] = "Hu et al. 2021, arXiv:2106.09685"
    sends: ClassVar[str] = "A and B: r (in + out) per matrix"
    limits: ClassVar[str] = (
        "The mean of A and B is not the mean of B A: start alike, or use partition ffa or alternate."
    )

    rank: Annotated[int, Field(ge=1, le=4096)] | Literal["auto"] = Field(
        8, description="Rank r of every adapted matrix; auto: the largest whose parameters stay within budget."
    )
    budget: float = Field(
        0.02, gt=0, le=1, description="With rank = auto: trained parameters as a share of the base's."
    )
    alpha: float = Field(16.0, gt=0, description="Scaling numerator; the change is multiplied by alpha / r.")
    targets: Literal["all-linear"] | list[str] = Field(
        "all-linear", description="Names of the linear modules to adapt, or all of them."
    )
    rslora: bool = Field(False, description="Scale by alpha / sqrt(r) instead (Kalajdzievski 2023, arXiv:2312.03732).")
    dora: bool = Field(False, description="Learn the length of each row too (DoRA, Liu et al. 2024, arXiv:2402.09353).")
    init: Literal["default", "gaussian", "orthogonal"] = Field(
        "default", description="Start of A: uniform, normal with deviation 1/r, or orthonormal rows. B starts at zero."
    )
    rank_pattern: dict[str, int] = Field({}, description="Other ranks by module name, such as {v_proj = 16}.")
    alpha_pattern: dict[str, float] = Field({}, description="Other alphas by module name.")

    _beside: Lora | None = PrivateAttr(None)
    """The method whose scaling this one shares, where that is known on a model only."""

    @field_validator("init", mode="before")
    @classmethod
    def _init(cls, init: object) -> object:
        if str(init).startswith(_OF_THE_BASE):
            raise ValueError(
                f"default, gaussian or orthogonal: {init} starts from the base's weights or data and may change them"
            )
        return init

    @property
    def averaging(self) -> Algebra:
        """DoRA divides by a norm."""
        return Algebra.NORM if self.dora else self.algebra

    def peft_config(self, model: PreTrainedModel) -> LoraConfig:
        """Return peft's LoRA configuration."""
        targets = require_targets(model, self.targets)
        for pattern in ("rank_pattern", "alpha_pattern"):
            if getattr(self, pattern):
                require_targets(model, list(getattr(self, pattern)), f"method.{pattern}")
        rank = self.rank_on(model)
        require_rank(model, max([rank, *self.rank_pattern.values()]), targets)
        alpha = self.alpha
        if self._beside is not None:
            alpha *= (rank / self._beside.rank_on(model)) ** (0.5 if self.rslora else 1.0)
        return LoraConfig(
            r=rank,
            lora_alpha=cast("int", alpha),  # any number works; the annotation is too narrow
            target_modules=targets,
            use_rslora=self.rslora,
            use_dora=self.dora,
            init_lora_weights="gaussian" if self.init == "gaussian" else True,
            rank_pattern=dict(self.rank_pattern),
            alpha_pattern=cast("dict[str, int]", dict(self.alpha_pattern)),
        )

    def rank_on(self, model: PreTrainedModel) -> int:
        """Return the rank on a model.

        Raises
        ------
        ScenarioError
            When not even rank 1 is within the budget, or auto meets ``rank_pattern``.
        """
        if self.rank != "auto":
            return self.rank
        if self.rank_pattern:
            raise ScenarioError("method.rank", "auto", "a number where rank_pattern is given")
        widths = [features(module) for module in linears(model, self.targets).values()]
        allowed = self.budget * base_parameters(model) - self.dora * sum(out for _, out in widths)
        rank = int(allowed // sum(map(sum, widths)))
        if rank < 1:
            least = (sum(map(sum, widths)) + self.dora * sum(out for _, out in widths)) / base_parameters(model)
            raise ScenarioError("method.budget", self.budget, f"at least {least:.2g}, which is rank 1 here")
        return min(rank, *map(min, widths))

    def attach(self, model: PreTrainedModel, slot: str) -> Attachment:
        """Inject the layers, and start A where peft's own starts will not do."""
        attached = super().attach(model, slot)
        if self.init == "orthogonal":
            # peft's start of that name has B A = 0 before rounding only: not over a bfloat16 base.
            for name, parameter in attached.parameters.items():
                if "lora_A" in name:
                    nn.init.orthogonal_(parameter.data)
        return attached

    def private(self, rank: int) -> Method | None:
        """Return the same with its own rank and the same scaling; DoRA's lengths do not add up."""
        if self.dora or self.rank_pattern or self.alpha_pattern:
            return None
        update: dict[str, Any] = {"rank": rank}
        if self.rank != "auto":
            ratio = rank / self.rank
            update["alpha"] = self.alpha * (ratio**0.5 if self.rslora else ratio)
        copy = self.model_copy(update=update)
        if self.rank == "auto":
            copy._beside = self
        return copy

    def share(self, schema: Schema, start: Vector, trained: Vector, share: float) -> Vector:
        """Scale B alone: the change is linear in it, and A may keep what it has learnt."""
        if self.dora:
            return super().share(schema, start, trained, share)
        return outer_share(schema, start, trained, share, lambda name: self.second in name)
