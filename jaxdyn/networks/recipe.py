"""What a training run is: its `Recipe` (structure, compiled in) and its `Knobs` (numbers, which may differ by run)."""

from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from ..checks import number, one_of, whole_number
from ..data.augment import Augmentation
from .encoders import ENCODERS
from .predictors import PREDICTORS, RULES

VIEW = Augmentation(shift=1, contrast=0.3, noise=0.1, cutout=3)
TRAINED = ("sg", "ema", "objective", "mixed")
LOSSES = ("normalised", "euclidean")


@dataclass(frozen=True)
class Recipe:
    """The structure of a training run.

    encoder, width, depth, heads, patch, projector, hidden, embedding: see `build_encoder`. predictor: see
    `build_predictor`; rule: how a linear predictor is set, "gradient" or without gradients (T §4). system: "sg",
    "ema", "objective" (no stop gradient) or "mixed". loss: half the squared distance of unit vectors
    (1 − cosine) or of the vectors themselves. both_sides: each view predicts the other. masked: views are a
    sample's visible and hidden patches (needs the ViT). schedule, warmup: of the learning rate over `steps`
    (warmup a share of them); ema_schedule: "cosine" brings the teacher's decay to 1 (BYOL).
    """

    encoder: Literal["linear", "mlp", "conv", "vit"] = "conv"
    width: int = 16
    depth: int = 2
    heads: int = 4
    patch: int = 4
    projector: Literal["none", "linear", "mlp"] = "mlp"
    hidden: int = 64
    embedding: int = 32
    predictor: Literal["none", "linear", "linear_bias", "mlp", "mlp_bias", "vit"] = "linear"
    rule: Literal["gradient", "directpred", "directpred_released", "directcopy", "least_squares"] = "gradient"
    system: Literal["sg", "ema", "objective", "mixed"] = "ema"
    loss: Literal["normalised", "euclidean"] = "normalised"
    both_sides: bool = True
    masked: bool = False
    optimizer: Literal["sgd", "adamw"] = "sgd"
    momentum: float = 0.9
    schedule: Literal["constant", "cosine"] = "constant"
    warmup: float = 0.0
    ema_schedule: Literal["constant", "cosine"] = "constant"
    batch: int = 64
    steps: int = 1000
    augmentation: Augmentation = VIEW

    def __post_init__(self):
        one_of("encoder", self.encoder, ENCODERS)
        one_of("predictor", self.predictor, PREDICTORS)
        one_of("rule", self.rule, RULES)
        one_of("system", self.system, TRAINED)
        one_of("loss", self.loss, LOSSES)
        one_of("optimizer", self.optimizer, ("sgd", "adamw"))
        one_of("schedule", self.schedule, ("constant", "cosine"))
        one_of("ema_schedule", self.ema_schedule, ("constant", "cosine"))
        for name in ("width", "depth", "heads", "patch", "hidden", "embedding", "steps"):
            whole_number(name, getattr(self, name))
        whole_number("batch", self.batch, low=2)
        number("momentum", self.momentum, low=0, high=1)
        number("warmup", self.warmup, low=0, high=1)
        if self.rule != "gradient" and self.predictor not in ("linear", "linear_bias"):
            raise ValueError(f"rule: {self.rule} sets a linear predictor, got predictor {self.predictor!r}")
        if self.masked != (self.predictor == "vit") or (self.masked and self.encoder != "vit"):
            raise ValueError("masked: masked prediction needs encoder vit and predictor vit, and they need it")
        if self.encoder == "vit" and self.projector == "none" and self.embedding != self.width:
            raise ValueError(f"embedding: without a projector it is width = {self.width}, got {self.embedding}")
        if self.masked and self.projector != "none":
            raise ValueError("projector: masked prediction compares the encoder's own tokens; expected 'none'")
        if self.encoder == "vit" and self.width % self.heads:
            raise ValueError(f"heads: expected a divisor of width = {self.width}, got {self.heads}")

    @property
    def has_teacher(self) -> bool:
        """Whether a stopped or averaged copy takes part."""
        return self.system != "objective"

    @property
    def has_objective(self) -> bool:
        """Whether the gradient goes through the target, too."""
        return self.system in ("objective", "mixed")

    def with_(self, **changes: Any) -> "Recipe":
        """A copy with changes."""
        return replace(self, **changes)


class Knobs(NamedTuple):
    """The numbers of a run.

    lr: learning rate of the encoder, in the optimizer's units. predictor_lr_ratio: α_p. weight_decay,
    predictor_weight_decay: η_s and η_p, as in P and T a rate per unit of the encoder's learning rate, whatever
    α_p is; None takes weight_decay. ema_decay: α of the teacher, per step (methods ema and mixed).
    objective_share: κ of system mixed, which descends (1 − κ)F + κE. symmetrise: 1 if the predictor is made
    symmetric after each step. epsilon, offset, memory, every: ε, c, ρ of a predictor's rule (T eqs 18-19, Table 7)
    and the steps from one setting to the next.
    """

    lr: Any = 0.3
    predictor_lr_ratio: Any = 1.0
    weight_decay: Any = 2e-3
    predictor_weight_decay: Any = None
    ema_decay: Any = 0.99
    objective_share: Any = 0.0
    symmetrise: Any = 0
    epsilon: Any = 0.0
    offset: Any = 0.0
    memory: Any = 0.3
    every: Any = 1

    def checked(self, recipe: Recipe) -> "Knobs":
        """The same as plain numbers, or ValueError naming what is out of range or has no part in the recipe."""
        self._check_parts(recipe)
        decay = self.weight_decay if self.predictor_weight_decay is None else self.predictor_weight_decay
        number("lr", self.lr, above=0)
        number("predictor_lr_ratio", self.predictor_lr_ratio, above=0)
        number("weight_decay", self.weight_decay, low=0)
        number("predictor_weight_decay", decay, low=0)
        for name in ("ema_decay", "objective_share", "symmetrise", "memory"):
            number(name, getattr(self, name), low=0, high=1)
        number("epsilon", self.epsilon, low=0)
        number("offset", self.offset)
        if self.symmetrise not in (0, 1):
            raise ValueError(f"symmetrise: expected 0 or 1, got {self.symmetrise!r}")
        plain = self._replace(predictor_weight_decay=decay)
        return Knobs(*map(float, plain))._replace(every=whole_number("every", self.every))

    def _check_parts(self, recipe: Recipe) -> None:
        ruled = recipe.rule != "gradient"
        needed = {
            "objective_share": (recipe.system == "mixed", "system mixed"),
            "symmetrise": (recipe.predictor not in ("none", "vit"), "a linear or mlp predictor"),
            "epsilon": (ruled and recipe.rule != "least_squares", "rule directpred or directcopy"),
            "offset": (recipe.rule.startswith("directpred"), "rule directpred"),
            "memory": (ruled, "a rule that sets the predictor"),
            "every": (ruled, "a rule that sets the predictor"),
        }
        for name, (has_part, words) in needed.items():
            if not has_part and getattr(self, name) != Knobs._field_defaults[name]:
                raise ValueError(f"{name}: it belongs to {words}")


def stacked(knobs: "list[Knobs]") -> Knobs:
    """Checked knobs of several settings as arrays [settings]."""
    return Knobs(*(jnp.asarray(np.array(values), jnp.int32 if name == "every" else jnp.float32)
                   for name, values in zip(Knobs._fields, zip(*knobs, strict=True), strict=True)))  # fmt: skip


def optimizers(recipe: Recipe, knobs: Knobs) -> tuple[optax.GradientTransformation, optax.GradientTransformation]:
    """The encoder's and the predictor's optax transformation; `knobs` may be traced.

    SGD decays inside the gradient, before the momentum, as T's experiments do; AdamW outside, as ever.
    """
    shape = _schedule(recipe)

    def one(lr, decay):
        # optax's schedules are in single precision, whatever the parameters are.
        rate = optax.scale_by_schedule(lambda count: -lr * jnp.asarray(shape(count), jnp.zeros(()).dtype))
        if recipe.optimizer == "sgd":
            return optax.chain(optax.add_decayed_weights(decay), optax.trace(recipe.momentum), rate)
        return optax.chain(optax.scale_by_adam(), optax.add_decayed_weights(decay), rate)

    ratio = knobs.predictor_lr_ratio
    return one(knobs.lr, knobs.weight_decay), one(ratio * knobs.lr, knobs.predictor_weight_decay / ratio)


def _schedule(recipe: Recipe) -> optax.Schedule:
    warm = round(recipe.warmup * recipe.steps)
    if recipe.schedule == "cosine":
        return optax.warmup_cosine_decay_schedule(0.0 if warm else 1.0, 1.0, warm, max(recipe.steps, warm + 1))
    return optax.join_schedules([optax.linear_schedule(0.0, 1.0, max(warm, 1)), optax.constant_schedule(1.0)], [warm])


def teacher_decay(recipe: Recipe, knobs: Knobs, step: Array) -> Any:
    """The teacher's decay in this step: 0 for stop gradient, whose teacher is the student itself."""
    if recipe.system == "sg":
        return 0.0
    if recipe.ema_schedule == "constant":
        return knobs.ema_decay
    share = jnp.minimum(step / recipe.steps, 1.0)
    return 1 - (1 - knobs.ema_decay) * (jnp.cos(jnp.pi * share) + 1) / 2


def moved_average(decay: Any, old: Any, new: Any) -> Any:
    """decay·old + (1 − decay)·new, leaf by leaf (exactly `new` at decay 0, `old` at 1)."""
    return jax.tree.map(lambda a, b: jnp.where(decay == 1, a, b + decay * (a - b)), old, new)
