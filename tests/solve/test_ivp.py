"""The solvers on standard problems, DETEST's 25 and seven stiff ones, beside SciPy's at equal tolerances."""

import functools
import warnings

import jax.numpy as jnp
import numpy as np
import pytest
from ivp import PROBLEMS
from ivp_solutions import REFERENCE
from scipy.integrate import solve_ivp

import jaxdyn as jd

NAMED = {problem.name: problem for problem in PROBLEMS}
PLAIN = [problem.name for problem in PROBLEMS if not problem.stiff]
STIFF = [problem.name for problem in PROBLEMS if problem.stiff]


def over_tolerance(problem, end, rtol, atol):
    """The largest error of a component at the end, in tolerances."""
    want = np.array(REFERENCE[problem.name])
    return float(np.max(np.abs(end - want) / (atol + rtol * np.abs(want))))


def ours(problem, rtol, atol, solver, run=jd.flow_ensemble):
    field = lambda t, y, _: jnp.stack([jnp.asarray(part, y.dtype) for part in problem.field(jnp, t, y)])  # noqa: E731
    start = np.array(problem.start)
    one = run is jd.flow
    options = {"t1": problem.t1, "rtol": rtol, "atol": atol, "solver": solver, "max_steps": 200_000}
    solution = run(field, start if one else start[None], None, **options)
    assert int(np.ravel(solution.status)[0]) == jd.Status.COMPLETED
    end = np.asarray(solution.final if one else solution.final[0])
    return over_tolerance(problem, end, rtol, atol), int(np.ravel(solution.n_steps)[0])


def scipys(problem, rtol, atol, method):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        field = lambda t, y: np.array(problem.field(np, t, y), float)  # noqa: E731
        solved = solve_ivp(field, (0, problem.t1), problem.start, method=method, rtol=rtol, atol=atol)
    return over_tolerance(problem, solved.y[:, -1], rtol, atol), len(solved.t) - 1


@functools.cache
def errors(rtol):
    """Of the 25: ours and RK45's."""
    return {name: (ours(NAMED[name], rtol, rtol, "tsit5")[0], scipys(NAMED[name], rtol, rtol, "RK45")[0])
            for name in PLAIN}  # fmt: skip


@pytest.mark.parametrize("rtol", [1e-6, 1e-8])
def test_tsit5_is_as_exact_as_scipys_method_of_its_order(rtol):
    """Each of the 25 within three times RK45's error (or the tolerance), and on average no worse."""
    found = errors(rtol)
    assert len(found) == 25
    assert not {name: pair for name, pair in found.items() if pair[0] > max(1, 3 * pair[1])}
    assert np.mean([np.log(ours / theirs) for ours, theirs in found.values()]) < np.log(1.1)


@pytest.mark.parametrize("name", STIFF)
def test_rodas5p_keeps_the_tolerance_of_stiff_problems(name):
    problem, rtol = NAMED[name], 1e-6
    atol = rtol * problem.atol_scale
    error, steps = ours(problem, rtol, atol, "rodas5p")
    theirs, their_steps = scipys(problem, rtol, atol, "Radau")
    assert error < 1
    assert theirs < 1
    assert steps < 1.5 * their_steps


def test_oregos_error_under_kvaerno5_is_the_absolute_tolerances():
    """Its second component falls to 3e-3, which 1e-6 tells to three digits: the next pulse comes at another time.

    Of SciPy's methods BDF and LSODA are as far off, for that reason; an absolute tolerance that is small beside all
    components ends it.
    """
    problem = NAMED["orego"]
    loose, _ = ours(problem, 1e-6, 1e-6, "kvaerno5", jd.flow)
    tight, _ = ours(problem, 1e-6, 1e-12, "kvaerno5", jd.flow)
    theirs, _ = scipys(problem, 1e-6, 1e-6, "LSODA")
    assert 10 < loose < 60
    assert theirs > 10
    assert tight < 0.01
