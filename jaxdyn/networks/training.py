"""Training steps: one for a run, `vmap` over seeds and settings, a jitted block of steps for all of them.

Stop gradient is the moving average whose teacher forgets at once, the plain objective has no teacher; so one step
serves every method. Everything random is a function of (seed, step): a run that goes on from a checkpoint sees the
same batches.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Integer, PRNGKeyArray

from ..data.base import Split
from .encoders import Encoder, build_encoder, vit_patch
from .layers import BATCH
from .predictors import Predictor, build_predictor
from .recipe import Knobs, Recipe, moved_average, optimizers, teacher_decay
from .rules import Estimates, no_estimates, set_predictor


class Network(NamedTuple):
    """Encoder f_θ and predictor g_ψ."""

    encoder: Encoder
    predictor: Predictor


class State(NamedTuple):
    """All that a run carries from step to step; arrays alone, `static` parts live in `Trainer`.

    student: θ and ψ; teacher: ξ; *_stats: batch statistics; optimizer: of encoder and predictor; estimates: of a
    rule; step: number of steps taken.
    """

    student: Any
    teacher: Any
    student_stats: Any
    teacher_stats: Any
    optimizer: Any
    estimates: Estimates
    step: Integer[Array, ""]


class Batch(NamedTuple):
    """Two views [batch, …] of the same samples, and which tokens of them are visible, or None."""

    x: Array
    y: Array
    visible: Bool[Array, "batch K"] | None


class Trainer(NamedTuple):
    """A recipe made concrete for samples of one shape: the static half of its networks."""

    recipe: Recipe
    shape: tuple[int, ...]
    static: Any

    def network(self, student: Any) -> Network:
        """The network with these arrays."""
        return eqx.combine(student, self.static)


def build(recipe: Recipe, shape: tuple[int, ...], key: PRNGKeyArray) -> tuple[Network, Any]:
    """Random networks and their batch statistics."""
    recipe.augmentation.check(shape)
    tokens = 1
    if recipe.encoder == "vit":
        for length, side in zip(shape[:-1], vit_patch(shape, recipe.patch), strict=True):
            tokens *= length // side
        if recipe.masked and tokens < 4:
            raise ValueError(f"patch: masked prediction needs at least 4 patches, got {tokens} in samples of {shape}")

    def make(key: Any):
        first, second = jax.random.split(key)
        encoder = build_encoder(
            recipe.encoder, shape, recipe.embedding, width=recipe.width, depth=recipe.depth, heads=recipe.heads,
            patch=recipe.patch, projector=recipe.projector, hidden=recipe.hidden, pooled=not recipe.masked,
            key=first,
        )  # fmt: skip
        predictor = build_predictor(
            recipe.predictor, recipe.embedding, tokens=tokens, partitions=recipe.partitions, key=second
        )
        return Network(encoder, predictor)

    return eqx.nn.make_with_state(make)(key)


def program_of(recipe: Recipe, shape: tuple[int, ...]) -> Trainer:
    """The recipe's program; ValueError where the recipe and the samples do not fit together."""
    network, _ = eqx.filter_eval_shape(lambda key: build(recipe, shape, key), jax.random.key(0))
    return Trainer(recipe, shape, eqx.filter(network, lambda leaf: not isinstance(leaf, jax.ShapeDtypeStruct)))


def initial(program: Trainer, knobs: Knobs, key: PRNGKeyArray) -> State:
    """The start of a run: random student, the teacher its copy, statistics and momenta at zero."""
    # Step t draws its batch from fold_in(key, t): the weights must come from a key of their own.
    network, stats = build(program.recipe, program.shape, jax.random.fold_in(key, 2**31 - 4))
    student = eqx.filter(network, eqx.is_inexact_array)
    first, second = optimizers(program.recipe, knobs)
    memory = (first.init(student.encoder), second.init(student.predictor))
    none = no_estimates(program.recipe)
    return State(student, student.encoder, stats, stats, memory, none, jnp.zeros((), jnp.int32))


def draw(program: Trainer, data: Split, key: PRNGKeyArray, count: int) -> Batch:
    """Random samples of `data`, with replacement, and two views of each."""
    pick, left, right, hide = jax.random.split(key, 4)
    rows = jax.random.randint(pick, (count,), 0, data.source.shape[0])
    augment = jax.vmap(program.recipe.augmentation)
    x = augment(jax.random.split(left, count), data.source[rows])
    if program.recipe.masked:
        visible = jax.vmap(lambda k: visible_tokens(program, k))(jax.random.split(hide, count))
        return Batch(x, x, visible)
    partner = data.source if data.target is None else data.target
    return Batch(x, augment(jax.random.split(right, count), partner[rows]), None)


@eqx.filter_jit
def draw_many(program: Trainer, data: Split, keys: Any, count: int) -> Batch:
    """A batch for each key, [seeds, count, …]."""
    return jax.vmap(lambda key: draw(program, data, key, count))(keys)


def visible_tokens(program: Trainer, key: PRNGKeyArray) -> Bool[Array, " K"]:
    """All but a random block of the patches' plane, half to three quarters of each side, hidden in every frame."""
    patch = vit_patch(program.shape, program.recipe.patch)
    grid = [length // side for length, side in zip(program.shape[:-1], patch, strict=True)]
    hidden = jnp.ones([*grid[:-2], 1, 1], bool)
    for axis, length in ((-2, grid[-2]), (-1, grid[-1])):
        key, size_key, start_key = jax.random.split(key, 3)
        size = jax.random.randint(size_key, (), max(1, length // 2), max(2, (3 * length) // 4 + 1))
        start = jax.random.randint(start_key, (), 0, length - size + 1)
        inside = (jnp.arange(length) >= start) & (jnp.arange(length) < start + size)
        hidden = hidden & (inside[:, None] if axis == -2 else inside)
    return ~hidden.ravel()


def embed(encoder: Encoder, stats: Any, views: Array, visible: Any = None) -> tuple[Array, Array, Any]:
    """Features and embeddings of a batch of views, and the statistics after it."""

    def one(view: Any, seen: Any):
        features, f, state = encoder(view, stats, seen)
        return (features, f), state

    (features, f), stats = jax.vmap(one, (0, _axis(visible)), (0, None), axis_name=BATCH)(views, visible)
    return features, f, stats


def predict(predictor: Predictor, stats: Any, f: Array, visible: Any = None) -> tuple[Array, Any]:
    """Predictions from a batch of embeddings, and the statistics after it."""
    one = lambda each, seen: predictor(each, stats, seen)  # noqa: E731
    return jax.vmap(one, (0, _axis(visible)), (0, None), axis_name=BATCH)(f, visible)


def _axis(part: Any) -> int | None:
    return None if part is None else 0


def discrepancy(recipe: Recipe, u: Array, v: Array, visible: Any = None) -> Float[Array, ""]:
    """Mean of ½‖u − v‖², of unit vectors if the loss is normalised; over hidden tokens if some are visible."""
    if recipe.loss == "normalised":
        u, v = unit(u), unit(v)
    each = 0.5 * jnp.sum((u - v) ** 2, -1)
    return each.mean() if visible is None else jnp.sum(jnp.where(visible, 0, each)) / jnp.sum(~visible)


def unit(x: Array) -> Array:
    """x/‖x‖ along the last axis; 0 stays 0."""
    return x * jax.lax.rsqrt(jnp.sum(x**2, -1, keepdims=True) + 1e-12)


class _Embedded(NamedTuple):
    """Embeddings of a batch: of the views that predict, of the teacher's and the student's own targets."""

    fs: list[Array]
    vs: list[Array]
    own: list[Array]
    student_stats: Any
    teacher_stats: Any


class _Outcome(NamedTuple):
    """What a loss leaves behind beside its value; `predictor` is what a rule made, or None."""

    student_stats: Any
    teacher_stats: Any
    estimates: Estimates
    predictor: Any


def loss(program: Trainer, student: Any, state: State, knobs: Knobs, batch: Batch) -> tuple[Array, _Outcome]:
    """The training loss at `student`, whose gradient in it is the method's update direction."""
    recipe, network = program.recipe, program.network(student)
    seen = _embedded(program, network.encoder, state, batch)
    estimates, made, predictor = state.estimates, None, network.predictor
    if recipe.rule != "gradient":
        estimates, made = set_predictor(
            recipe, knobs, state.step, state.estimates, predictor, seen.fs, seen.vs or seen.own
        )
        predictor = _chosen(state, knobs, made, predictor)
    value, stats = _compared(program, predictor, seen, knobs, batch)
    return value, _Outcome(stats, seen.teacher_stats, estimates, made)


def _embedded(program: Trainer, encoder: Any, state: State, batch: Batch) -> _Embedded:
    recipe, hidden = program.recipe, batch.visible
    two_way = recipe.both_sides and not recipe.masked
    sources, targets = ([batch.x, batch.y], [batch.y, batch.x]) if two_way else ([batch.x], [batch.y])
    stats, teacher_stats = _copied(state.student_stats), _copied(state.teacher_stats)
    fs, vs, own = [], [], []
    for view in sources:
        _, f, stats = embed(encoder, stats, view, hidden)
        fs.append(f)
    if recipe.has_teacher:
        teacher = eqx.combine(state.teacher, program.static.encoder)
        for view in targets:
            _, v, teacher_stats = embed(teacher, teacher_stats, view)
            vs.append(v)  # of weights that are no part of `student`: nothing to stop
    if recipe.has_objective:
        own = fs[::-1]
        if not two_way:
            _, f, stats = embed(encoder, stats, targets[0])
            own = [f]
    return _Embedded(fs, vs, own, stats, teacher_stats)


def _compared(program: Trainer, predictor: Any, seen: _Embedded, knobs: Knobs, batch: Batch) -> tuple[Array, Any]:
    """The loss of these embeddings, and the student's statistics after it."""
    recipe, hidden, stats = program.recipe, batch.visible, _copied(seen.student_stats)
    share = {"objective": 1.0, "mixed": knobs.objective_share}.get(recipe.system, 0.0)
    value = jnp.zeros(())
    for i, f in enumerate(seen.fs):
        u, stats = predict(predictor, stats, f, hidden)
        if recipe.has_teacher:
            value += (1 - share) * discrepancy(recipe, u, seen.vs[i], hidden)
        if recipe.has_objective:
            value += share * discrepancy(recipe, u, seen.own[i], hidden)
    return value / len(seen.fs), stats


def _chosen(state: State, knobs: Knobs, made: Any, learnt: Any) -> Any:
    """What a rule made in the steps in which it sets the predictor, else what was learnt; a bias is always learnt."""
    now = state.step % knobs.every == 0
    chosen = jax.tree.map(
        lambda a, b: jnp.where(now, a, b), *(eqx.filter(each, eqx.is_array) for each in (made, learnt))
    )
    if getattr(learnt, "bias", None) is not None:
        chosen = eqx.tree_at(lambda p: p.bias, chosen, learnt.bias)
    return eqx.combine(chosen, learnt)


class Moved(NamedTuple):
    """Loss of a step, and how far it moved θ, ψ and ξ."""

    loss: Array
    encoder: Array
    predictor: Array
    teacher: Array


def step(program: Trainer, state: State, knobs: Knobs, batch: Batch) -> tuple[State, Moved]:
    """One training step of one run."""
    recipe = program.recipe
    begun, state = state, _predicted_more(program, state, knobs, batch)
    (value, after), gradient = jax.value_and_grad(lambda s: loss(program, s, state, knobs, batch), has_aux=True)(
        state.student
    )
    first, _ = optimizers(recipe, knobs)
    change, memory = first.update(gradient.encoder, state.optimizer[0], state.student.encoder)
    encoder = eqx.apply_updates(state.student.encoder, change)
    predictor, predictor_memory = _predictor_moved(program, knobs, gradient.predictor, state, after.predictor)
    teacher = state.teacher
    if recipe.has_teacher:
        teacher = moved_average(teacher_decay(recipe, knobs, state.step), teacher, encoder)
    student = Network(encoder, predictor)
    pairs = ((encoder, begun.student.encoder), (predictor, begun.student.predictor), (teacher, begun.teacher))
    moved = Moved(value, *(optax.tree.norm(optax.tree.sub(new, old)) for new, old in pairs))
    return State(
        student, teacher, after.student_stats, after.teacher_stats, (memory, predictor_memory),
        after.estimates, state.step + 1,
    ), moved  # fmt: skip


def _predictor_moved(program: Trainer, knobs: Knobs, gradient: Any, state: State, made: Any) -> tuple[Any, Any]:
    """The predictor and its optimizer's memory after a gradient step, a rule and the symmetry, whichever apply."""
    _, optimizer = optimizers(program.recipe, knobs)
    change, memory = optimizer.update(gradient, state.optimizer[1], state.student.predictor)
    predictor = eqx.apply_updates(state.student.predictor, change)
    if made is not None:
        predictor = _chosen(state, knobs, made, predictor)
        predictor = eqx.filter(predictor, eqx.is_inexact_array)
    if program.recipe.predictor not in ("none", "vit"):
        even = eqx.combine(predictor, program.static.predictor).symmetrised()
        even = eqx.filter(even, eqx.is_inexact_array)
        predictor = jax.tree.map(lambda a, b: jnp.where(knobs.symmetrise > 0, b, a), predictor, even)
    return predictor, memory


def _predicted_more(program: Trainer, state: State, knobs: Knobs, batch: Batch) -> State:
    """The state after the predictor's steps that are its own: the encoder, the teacher and the batch are held."""
    if program.recipe.predictor_steps == 1:
        return state
    encoder = eqx.combine(state.student.encoder, program.static.encoder)
    seen = _embedded(program, encoder, state, batch)

    def value(predictor: Any):
        return _compared(program, eqx.combine(predictor, program.static.predictor), seen, knobs, batch)[0]

    def one(state: State, _):
        gradient = jax.grad(value)(state.student.predictor)
        predictor, memory = _predictor_moved(program, knobs, gradient, state, None)
        student = Network(state.student.encoder, predictor)
        return state._replace(student=student, optimizer=(state.optimizer[0], memory)), None

    return jax.lax.scan(one, state, length=program.recipe.predictor_steps - 1)[0]


@eqx.filter_jit
def start(program: Trainer, knobs: Knobs, keys: Any, data: Split) -> State:
    """States [seeds, settings] of runs: every setting of a seed starts from the same weights and statistics."""

    def one(key: Any):
        batch = draw(program, data, jax.random.fold_in(key, 2**31 - 2), program.recipe.batch)
        return jax.vmap(lambda k: _settled(program, initial(program, k, key), batch))(knobs)

    return jax.vmap(one)(keys)


def _settled(program: Trainer, state: State, batch: Batch) -> State:
    """The start with the statistics of a batch, so that it can be measured before the first step."""
    network = program.network(state.student)
    _, f, stats = embed(network.encoder, state.student_stats, batch.x, batch.visible)
    _, stats = predict(network.predictor, stats, f, batch.visible)
    return state._replace(student_stats=stats, teacher_stats=stats)


def _copied(stats: Any) -> Any:
    """The same statistics as an object of its own: equinox lets each be used once."""
    leaves, structure = jax.tree.flatten(stats)
    return jax.tree.unflatten(structure, leaves)


@eqx.filter_jit
def advance(program: Trainer, states: State, knobs: Knobs, keys: Any, data: Split, count: int) -> tuple[State, Moved]:
    """`count` steps of all runs [seeds, settings]; every setting of a seed sees the same batches.

    Returns:
        The states, and the means over these steps of what `step` reports, [seeds, settings].
    """

    def one_seed(state: Any, key: Any):
        at = jax.tree.leaves(state.step)[0][0]
        batch = draw(program, data, jax.random.fold_in(key, at), program.recipe.batch)
        return jax.vmap(lambda s, k: step(program, s, k, batch))(state, knobs)

    def one(carry: Any, _):
        states, total = carry
        states, moved = jax.vmap(one_seed)(states, keys)
        return (states, jax.tree.map(jnp.add, total, moved)), None

    shape = (keys.shape[0], knobs.lr.shape[0])
    zero = Moved(*(jnp.zeros(shape) for _ in Moved._fields))
    (states, total), _ = jax.lax.scan(one, (states, zero), length=count)
    return states, jax.tree.map(lambda part: part / count, total)
