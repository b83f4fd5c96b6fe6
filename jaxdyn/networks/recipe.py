"""What a training run is: its `Recipe` (structure, compiled in) and its `Knobs` (numbers, which may differ by run)."""

import math
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from ..checks import expected, number, one_of, whole_number, yes_or_no
from ..data.augment import Augmentation
from .encoders import ENCODERS
from .predictors import PREDICTORS, RULES

VIEW = Augmentation(shift=1, contrast=0.3, noise=0.1, cutout=3)
TRAINED = ("sg", "ema", "objective", "mixed")
LOSSES = ("normalised", "euclidean")


@dataclass(frozen=True)
class Recipe:
    """The structure of a training run: what is compiled in. See `build_encoder`, `build_predictor` and T §4.

    Raises:
        ValueError: naming the setting, what was expected and what came, and for parts that do not go together.

    Source: T §4 and App. A (symmetrised losses, predictors, rules); P §5 (masked prediction).
    """

    encoder: Literal["linear", "mlp", "conv", "vit"] = "conv"
    """The trunk whose features are probed."""
    width: int = 16
    """Hidden units; of conv, channels of the first layer."""
    depth: int = 2
    """Layers of the trunk."""
    heads: int = 4
    """Attention heads of vit."""
    patch: int = 4
    """Side of vit's patches, in pixels."""
    projector: Literal["none", "linear", "mlp"] = "mlp"
    """From features to the embedding."""
    hidden: int = 64
    """Units inside an mlp projector."""
    embedding: int = 32
    """Dimension n of the embedding."""
    predictor: Literal["none", "linear", "linear_bias", "mlp", "mlp_bias", "vit"] = "linear"
    """From one view's embedding to the other's."""
    rule: Literal["gradient", "directpred", "directpred_released", "directcopy", "least_squares"] = "gradient"
    """How a linear predictor is set."""
    average: Literal["moving", "simple"] = "moving"
    """Of a rule's correlations: with a memory, or over all batches so far."""
    partitions: int = 0
    """Random planes that cut the embeddings in two, each half with a matrix of its own, set by the rule in every step;
    0: one matrix for all."""
    predictor_steps: int = 1
    """Steps of the predictor on a batch, the last together with the encoder's."""
    system: Literal["sg", "ema", "objective", "mixed"] = "ema"
    """Stop gradient, moving average, plain objective, or a mixture of objective and moving average."""
    loss: Literal["normalised", "euclidean"] = "normalised"
    """Half the squared distance of unit vectors, or of the vectors themselves."""
    both_sides: bool = True
    """Whether each view predicts the other."""
    masked: bool = False
    """Predict hidden patches from visible ones (encoder and predictor vit, projector none)."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """SGD with momentum, or AdamW."""
    momentum: float = 0.9
    """Of SGD."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Of the learning rate."""
    warmup: float = 0.0
    """Share of the steps in which the learning rate rises from 0."""
    ema_schedule: Literal["constant", "cosine"] = "constant"
    """Of the teacher's decay; cosine brings it to 1."""
    batch: int = 64
    """Samples of a step."""
    steps: int = 1000
    """Training steps."""
    augmentation: Augmentation = VIEW
    """Random views of the samples."""

    def __post_init__(self):
        one_of("encoder", self.encoder, ENCODERS)
        one_of("projector", self.projector, ("none", "linear", "mlp"))
        expected("augmentation", self.augmentation, Augmentation)
        for name in ("both_sides", "masked"):
            yes_or_no(name, getattr(self, name))
        one_of("predictor", self.predictor, PREDICTORS)
        one_of("rule", self.rule, RULES)
        one_of("average", self.average, ("moving", "simple"))
        one_of("system", self.system, TRAINED)
        one_of("loss", self.loss, LOSSES)
        one_of("optimizer", self.optimizer, ("sgd", "adamw"))
        one_of("schedule", self.schedule, ("constant", "cosine"))
        one_of("ema_schedule", self.ema_schedule, ("constant", "cosine"))
        for name in ("width", "depth", "heads", "patch", "hidden", "embedding"):
            whole_number(name, getattr(self, name), high=10_000)
        whole_number("steps", self.steps)
        whole_number("batch", self.batch, low=2)
        whole_number("partitions", self.partitions, low=0, high=1000)
        whole_number("predictor_steps", self.predictor_steps, high=1000)
        number("momentum", self.momentum, low=0, high=1)
        number("warmup", self.warmup, low=0, high=1)
        self._check_predictor()
        if self.masked != (self.predictor == "vit") or (self.masked and self.encoder != "vit"):
            raise ValueError("masked: masked prediction needs encoder vit and predictor vit, and they need it")
        if self.encoder == "vit" and self.projector == "none" and self.embedding != self.width:
            raise ValueError(f"embedding: without a projector it is width = {self.width}, got {self.embedding}")
        if self.masked and self.projector != "none":
            raise ValueError("projector: masked prediction compares the encoder's own tokens; expected 'none'")
        if self.encoder == "vit" and self.width % self.heads:
            raise ValueError(f"heads: expected a divisor of width = {self.width}, got {self.heads}")

    def _check_predictor(self) -> None:
        """What sets or moves the predictor fits it."""
        if self.rule != "gradient" and self.predictor not in ("linear", "linear_bias"):
            raise ValueError(f"rule: {self.rule} sets a linear predictor, got predictor {self.predictor!r}")
        if self.average != "moving" and self.rule == "gradient":
            raise ValueError("average: it belongs to a rule that sets the predictor")
        if self.partitions and not (self.rule.startswith("direct") and self.predictor == "linear"):
            raise ValueError("partitions: they belong to rule directpred or directcopy, predictor linear")
        if self.predictor_steps > 1 and (self.rule != "gradient" or self.predictor == "none"):
            raise ValueError("predictor_steps: they belong to a predictor that is learnt, rule gradient")

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


class Knobs(eqx.Module):
    """The numbers of a run, which may differ from run to run in one program.

    Args:
        lr: learning rate of the encoder, in the optimizer's units.
        predictor_lr_ratio: α_p > 0, the predictor's learning rate over the encoder's.
        weight_decay, predictor_weight_decay: η_s and η_p >= 0, as in P and T a rate per unit of the encoder's learning
            rate, whatever α_p is; None takes weight_decay.
        ema_decay: α of the teacher in [0, 1], per step (systems ema and mixed).
        objective_share: κ in [0, 1] of system mixed, which descends (1 − κ)F + κE.
        symmetrise: 1 if the predictor is made symmetric after each step.
        epsilon, offset, memory, every: ε, c, ρ of a predictor's rule and the steps from one setting to the next.

    Raises:
        ValueError: naming what is out of range; from `checked`, what has no part in the recipe.

    Source: T §4, eqs 18-19, Table 7.
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

    def __check_init__(self):
        values = {name: value for name, value in self.named().items() if not isinstance(value, jax.Array)}
        for name in values.keys() & {"lr", "predictor_lr_ratio"}:
            number(name, values[name], above=0)
        for name in values.keys() & {"weight_decay", "epsilon"}:
            number(name, values[name], low=0)
        for name in values.keys() & {"ema_decay", "objective_share", "symmetrise", "memory"}:
            number(name, values[name], low=0, high=1)
        if values.get("predictor_weight_decay") is not None:
            number("predictor_weight_decay", values["predictor_weight_decay"], low=0)
        if "offset" in values:
            number("offset", values["offset"])
        if "every" in values:
            whole_number("every", values["every"])
        if values.get("symmetrise", 0) not in (0, 1):
            raise ValueError(f"symmetrise: expected 0 or 1, got {self.symmetrise!r}")

    def named(self) -> dict[str, Any]:
        """Names and values."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    def with_(self, **changes: Any) -> "Knobs":
        """A copy with changes."""
        return replace(self, **changes)

    def checked(self, recipe: Recipe) -> "Knobs":
        """The same as plain numbers, or ValueError naming what has no part in the recipe."""
        expected("recipe", recipe, Recipe)
        for name, value in self.named().items():
            if value is not None and np.ndim(value):
                raise ValueError(f"{name}: expected one number, got shape {np.shape(value)}")
        self._check_parts(recipe)
        decay = self.weight_decay if self.predictor_weight_decay is None else self.predictor_weight_decay
        plain = {name: float(value) for name, value in (self.named() | {"predictor_weight_decay": decay}).items()}
        if not (math.isfinite(plain["every"]) and plain["every"] == round(plain["every"])):
            raise ValueError(f"every: expected a whole number >= 1, got {self.every}")
        return Knobs(**plain | {"every": int(self.every)})

    def _check_parts(self, recipe: Recipe) -> None:
        ruled = recipe.rule != "gradient"
        needed = {
            "objective_share": (recipe.system == "mixed", "system mixed"),
            "symmetrise": (recipe.predictor not in ("none", "vit"), "a linear or mlp predictor"),
            "epsilon": (ruled and recipe.rule != "least_squares", "rule directpred or directcopy"),
            "offset": (recipe.rule.startswith("directpred"), "rule directpred"),
            "memory": (ruled and recipe.average == "moving", "a rule that sets the predictor, average moving"),
            "every": (ruled and not recipe.partitions, "a rule that sets the predictor, without partitions"),
        }
        for name, (has_part, words) in needed.items():
            if not has_part and getattr(self, name) != getattr(Knobs, name):
                raise ValueError(f"{name}: it belongs to {words}")


def stacked(knobs: "list[Knobs]") -> Knobs:
    """Checked knobs of several settings as arrays [settings]."""
    kinds = {"every": jnp.int32}
    columns = {name: [getattr(each, name) for each in knobs] for name in Knobs().named()}
    return Knobs(
        **{name: jnp.asarray(np.array(values), kinds.get(name, jnp.float32)) for name, values in columns.items()}
    )


def optimizers(recipe: Recipe, knobs: Knobs) -> tuple[optax.GradientTransformation, optax.GradientTransformation]:
    """The encoder's and the predictor's optax transformation; `knobs` may be traced.

    SGD decays inside the gradient, before the momentum, as T's experiments do; AdamW outside, as ever.
    """
    shape = _schedule(recipe)

    def one(lr: Any, decay: Any, per_step: int = 1):
        # optax's schedules are in single precision, whatever the parameters are.
        rate = optax.scale_by_schedule(
            lambda count: -lr * jnp.asarray(shape(jnp.asarray(count) // per_step), jnp.zeros(()).dtype)
        )
        if recipe.optimizer == "sgd":
            return optax.chain(optax.add_decayed_weights(decay), optax.trace(recipe.momentum), rate)
        return optax.chain(optax.scale_by_adam(), optax.add_decayed_weights(decay), rate)

    ratio = knobs.predictor_lr_ratio
    predictor = one(ratio * knobs.lr, knobs.predictor_weight_decay / ratio, recipe.predictor_steps)
    return one(knobs.lr, knobs.weight_decay), predictor


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
