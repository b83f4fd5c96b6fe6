"""The update direction of a network as a vector field, for the question whether it is a gradient (P Prop 3.2)."""

from typing import Any

import jax

from ..analysis.integrability import GradientDefect, gradient_defect
from .recipe import Knobs
from .training import Batch, State, Trainer, loss


def update_field(program: Trainer, state: State, knobs: Knobs, batch: Batch) -> tuple[Any, Any]:
    """(field, point): the direction in which gradient descent moves a run on a fixed batch, without decay.

    For stop gradient and the objective the point is (θ, ψ), and the teacher moves with θ. For the moving average it
    is (θ, ψ, ξ) with ξ̇ = (θ − ξ)(1 − α)/lr. The predictor's part carries α_p.
    """

    def descent(student: Any, teacher: Any) -> Any:
        held = state._replace(teacher=teacher)
        down = jax.grad(lambda at: loss(program, at, held, knobs, batch)[0])(student)
        scaled = jax.tree.map(lambda leaf: knobs.predictor_lr_ratio * leaf, down.predictor)
        return jax.tree.map(lambda leaf: -leaf, down._replace(predictor=scaled))

    if program.recipe.system in ("ema", "mixed"):
        rate = (1 - knobs.ema_decay) / knobs.lr

        def field(t: Any, point: Any, data: Any) -> Any:
            student, teacher = point
            follow = jax.tree.map(lambda a, c: rate * (a - c), student.encoder, teacher)
            return descent(student, teacher), follow

        return field, (state.student, state.teacher)
    return lambda t, student, data: descent(student, student.encoder), state.student


def network_defect(
    program: Trainer, state: State, knobs: Knobs, batch: Batch, *, probes: int, key: Any
) -> GradientDefect:
    """‖J − Jᵀ‖/‖J‖ of `update_field` at a run's state, by random probes."""
    field, point = update_field(program, state, knobs, batch)
    return gradient_defect(field, point, probes=probes, key=key)
