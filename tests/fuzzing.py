"""Random programs, run by the fused engine and by JAX itself.

A program is a list of instructions on a pool of arrays, drawn from a seed: what a user's step may do, put together in
ways that nobody thought of. `python tests/fuzzing.py --programs 2000` runs as many as one likes, in processes of their
own so that a crash is seen; a few hundred are in the suite.
"""

import argparse
import collections
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from rounding import evaluated

TRIALS = 5
SLOW = 5.0  # seconds of compiling that "auto" may never take

UNARY: dict[str, Callable[[Any], Any]] = {
    "neg": lambda x: -x,
    "abs": jnp.abs,
    "sin": jnp.sin,
    "cos": jnp.cos,
    "tan": jnp.tan,
    "tanh": jnp.tanh,
    "sinh": lambda x: jnp.sinh(jnp.clip(x, -9, 9)),
    "cosh": lambda x: jnp.cosh(jnp.clip(x, -9, 9)),
    "exp": jnp.exp,
    "exp2": jnp.exp2,
    "expm1": jnp.expm1,
    "log": jnp.log,
    "log1p": lambda x: jnp.log1p(jnp.abs(x)),
    "sqrt": lambda x: jnp.sqrt(jnp.abs(x)),
    "root of any": jnp.sqrt,
    "rsqrt": lambda x: lax.rsqrt(1 + x * x),
    "cbrt": jnp.cbrt,
    "square": jnp.square,
    "reciprocal": lambda x: 1 / x,
    "erf": jax.scipy.special.erf,
    "sigmoid": jax.nn.sigmoid,
    "relu": jax.nn.relu,
    "softplus": jax.nn.softplus,
    "sign": jnp.sign,
    "floor": jnp.floor,
    "ceil": jnp.ceil,
    "round": jnp.round,
    "asin": lambda x: jnp.arcsin(jnp.clip(x, -1, 1)),
    "atan": jnp.arctan,
    "asinh": jnp.arcsinh,
    "atanh": lambda x: jnp.arctanh(x / (1 + jnp.abs(x))),
    "cube": lambda x: x**3,
    "power": lambda x: jnp.abs(x) ** 1.3,
    "clip": lambda x: jnp.clip(x, -0.7, 1.1),
    "zeros": jnp.zeros_like,
    "times 0": lambda x: x * 0.0,
    "plus 0": lambda x: x + 0.0,
    "minus 0": lambda x: 0.0 - x,
    "times 1": lambda x: 1.0 * x,
    "halved": lambda x: x / 2,
    "finite": lambda x: jnp.where(jnp.isfinite(x), x, -1.5),
    "copy": jnp.array,
    "no gradient": lax.stop_gradient,
    "integer": lambda x: _integers(x).astype(x.dtype),
    "single": lambda x: _single(x),
    "scaled": lambda x: x / (1 + jnp.sqrt(jnp.sum(x * x))),
    "nan to num": lambda x: jnp.nan_to_num(x, posinf=9.0, neginf=-9.0),
}
BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "add": jnp.add,
    "sub": jnp.subtract,
    "mul": jnp.multiply,
    "div": jnp.divide,
    "max": jnp.maximum,
    "min": jnp.minimum,
    "atan2": jnp.arctan2,
    "hypot": jnp.hypot,
    "power": lambda x, y: (0.1 + jnp.abs(x)) ** jnp.clip(y, -3, 3),
    "smaller": lambda x, y: jnp.where(x < y, x, 2 * y),
    "equal": lambda x, y: jnp.where(x == y, x, y - x),
    "both": lambda x, y: jnp.where((x > 0) & ~(y > 0.3), x, y),
    "either": lambda x, y: jnp.where((x > 0) | (y >= x), y, 1.0),
    "copysign": lambda x, y: jnp.copysign(x, jnp.where(jnp.isnan(y), 1, y)),  # a NaN's sign is nobody's promise
    "logaddexp": jnp.logaddexp,
    "integers": lambda x, y: (_integers(x) * 7 - _integers(y)).astype(x.dtype),
    "bits": lambda x, y: ((_integers(x) & _integers(y)) ^ (_integers(x) | 5)).astype(x.dtype),
    "rest": lambda x, y: jnp.fmod(x, 1 + jnp.abs(y)),
    "cond": lambda x, y: lax.cond(jnp.sum(x) > 0, lambda: jnp.sin(x) + 0 * y, lambda: y * x),
    "tangent": lambda x, y: jax.jvp(lambda z: jnp.tanh(z) * jnp.sum(z), (x,), (jnp.broadcast_to(y, x.shape),))[1],
}
VECTOR: dict[str, Callable[[Any], Any]] = {
    "sum": lambda x: jnp.sum(x),
    "prod": lambda x: jnp.prod(x),
    "mean": lambda x: jnp.mean(x, -1),
    "max": lambda x: jnp.max(x, -1),
    "min": lambda x: jnp.min(x, 0),
    "argmax": lambda x: jnp.argmax(x, -1).astype(x.dtype),
    "cumsum": lambda x: jnp.cumsum(x, -1),
    "cumprod": lambda x: jnp.cumprod(x, 0),
    "flip": lambda x: jnp.flip(x, -1),
    "roll": lambda x: jnp.roll(x, 1, -1),
    "transpose": lambda x: x.T,
    "flat": lambda x: x.ravel(),
    "outer": lambda x: jnp.outer(x.ravel(), jnp.sin(x.ravel()))[:3, :3],
    "pair": lambda x: jnp.stack([x, -x]),
    "first": lambda x: x[0],
    "last": lambda x: x[..., -1:],
    "stride": lambda x: x[..., ::2],
    "pad": lambda x: jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(1, 2)], constant_values=0.5),
    "set": lambda x: x.at[..., 0].set(0.3),
    "softmax": lambda x: jax.nn.softmax(x, -1),
    "norm": jnp.linalg.norm,
    "logsumexp": lambda x: jax.scipy.special.logsumexp(x, -1),
    "diagonal": lambda x: jnp.diag(x.ravel()[:3]),
    "gram": lambda x: jnp.atleast_2d(x) @ jnp.atleast_2d(x).T,
    "solve": lambda x: jnp.linalg.solve(_regular(x), jnp.ones(3, x.dtype)),
    "determinant": lambda x: jnp.linalg.det(_regular(x)),
    "inverse": lambda x: jnp.linalg.inv(_regular(x)),
    "gradient": jax.grad(lambda x: jnp.sum(jnp.sin(x) * jnp.cumsum(x, -1))),
    "jacobian": lambda x: jax.jacfwd(lambda z: jnp.roll(z, 1) * z)(_finite(x).ravel()[:3]) + 0.0,
    "reverse": lambda x: jax.jacrev(jnp.tanh)(_finite(x).ravel()[:3]) + 0.0,
    "hessian": lambda x: jax.hessian(lambda z: jnp.prod(jnp.cos(z)))(_finite(x).ravel()[:2]) + 0.0,
    "batched": lambda x: jax.vmap(lambda row: row - jnp.mean(row))(jnp.atleast_2d(x)),
    "loop": lambda x: lax.fori_loop(0, 3, lambda i, z: jnp.tanh(z) + i, x),
    "scan": lambda x: lax.scan(lambda c, row: (0.5 * c + row, c * row), jnp.zeros_like(x[0]), x)[1],
    "index": lambda x: x[_integers(x.ravel()[0]) % x.shape[0]],
    "switch": lambda x: lax.switch(_integers(x.ravel()[0]), [jnp.sin, jnp.cos, lambda z: -z], x),
    "window": lambda x: lax.dynamic_slice_in_dim(x, _integers(x.ravel()[-1]), 1, 0),
    "repeat": lambda x: jnp.repeat(x, 2, 0)[:4],
    "mask": lambda x: _finite(x) * jnp.eye(x.shape[-1], dtype=x.dtype)[0] + 0.0,
    "einsum": lambda x: jnp.einsum("...i,...i->...", x, x),
}
DEEP: dict[str, Callable[[Any], Any]] = {  # what takes more than arithmetic: one program in four may use it
    "sort": lambda x: jnp.sort(x, -1),
    "argsort": lambda x: jnp.argsort(jnp.round(x), -1).astype(x.dtype),
    "median": jnp.median,
    "while": lambda x: lax.while_loop(lambda z: jnp.sum(jnp.abs(z)) > 1, lambda z: z / 2, jnp.clip(x, -9, 9)),
    "count": lambda x: lax.while_loop(lambda c: c[0] < 9, lambda c: (c[0] * 2, c[1] + 1), (0.1 + _tame(x), 0))[1] + 0.0,
    "passes": lambda x: lax.fori_loop(0, _integers(x.ravel()[0]), lambda i, z: jnp.cos(z) + 0.1 * i, x),
    "many passes": lambda x: lax.fori_loop(0, 300, lambda i, z: jnp.sin(z) + 0.3 * jnp.roll(z, 1), _finite(x)),
    "rows": lambda x: lax.scan(lambda c, row: (0.5 * c + row, c * row), jnp.zeros((), x.dtype), jnp.resize(x, (12,)))[
        1
    ],
    "complex": lambda x: jnp.real(jnp.exp(1j * x) * (x - 2j)).astype(x.dtype),
    "complex root": lambda x: jnp.imag(jnp.sqrt(x + 1j)).astype(x.dtype),
    "complex quotient": lambda x: jnp.abs((x + 1j) / (x - 0.5j)).astype(x.dtype),
    "added at": lambda x: x.at[0].add(1.0),
    "added there": lambda x: x.at[_integers(x.ravel()[:2]) % x.shape[0]].add(0.5),
    "put there": lambda x: x.at[_integers(x.ravel()[0])].set(0.5, mode="drop"),
    "taken": lambda x: jnp.take(x, _integers(x.ravel()[:2]), axis=-1, mode="fill"),
    "searched": lambda x: jnp.searchsorted(jnp.sort(jnp.clip(x.ravel(), -9, 9)), 0.3).astype(x.dtype),
    "eigenvalues": lambda x: jnp.linalg.eigvalsh(_regular(x) @ _regular(x).T),
    "cholesky": lambda x: jnp.linalg.cholesky(_regular(x) @ _regular(x).T),
    "triangle": lambda x: jax.scipy.linalg.solve_triangular(_regular(x), jnp.ones(3, x.dtype)),
    "qr": lambda x: jnp.linalg.qr(_regular(x))[1],
    "singular values": lambda x: jnp.linalg.svdvals(_regular(x)),
    "slogdet": lambda x: jnp.linalg.slogdet(_regular(x))[1],
    "shift": lambda x: ((_integers(x) << 1) + (_integers(x) >> 2)).astype(x.dtype),
    "remainder": lambda x: (_integers(x) % 3 + _integers(x) // 5).astype(x.dtype),
    "uniform": lambda x: x + jax.random.uniform(_key(x), (), x.dtype),
    "normal": lambda x: x * jax.random.normal(jax.random.split(_key(x))[1], x.shape[-1:], x.dtype),
    "choice": lambda x: jax.random.randint(_key(x), x.shape[:1], 0, 9).astype(x.dtype),
}
RARE: dict[str, Callable[[Any], Any]] = {  # what the fused engine need not have; it must say so
    "fft": lambda x: jnp.abs(jnp.fft.fft(x)).astype(x.dtype),
    "vectors": lambda x: jnp.abs(jnp.linalg.svd(_regular(x))[0]),
    "gamma": lambda x: x + jax.random.gamma(_key(x), 2.0, (), x.dtype),
    "digamma": lambda x: jax.scipy.special.digamma(1 + jnp.abs(x)),
}


def _tame(x: Any) -> Any:
    """One number in [0, 1]."""
    return jnp.clip(jnp.where(jnp.isnan(x), 0, jnp.abs(x)), 0, 1).ravel()[0]


def _key(x: Any) -> Any:
    return jax.random.key(_integers(x.ravel()[0]))


def _integers(x: Any) -> Any:
    return jnp.clip(jnp.where(jnp.isnan(x), 0, x) * 3, -20, 20).astype(jnp.int32)


def _finite(x: Any) -> Any:
    """What zeros of masks multiply the fused engine leaves out (docs/engine.md): no NaN may come of it, and no −0."""
    return jnp.where(jnp.isfinite(x), x, 1.0)


def _single(x: Any) -> Any:
    return x.astype(jnp.float32).astype(x.dtype)


def _regular(x: Any) -> Any:
    """A matrix [3, 3] far from singular."""
    return jnp.tanh(jnp.resize(x, (3, 3))) + 4 * jnp.eye(3, dtype=x.dtype)


@dataclass(frozen=True)
class Instruction:
    name: str
    function: Callable[..., Any]
    arguments: tuple[int, ...]


@dataclass(frozen=True)
class RandomProgram:
    """new state [3] from state [3] and data [2, 3]: instructions on a pool of arrays; the last three are added up."""

    seed: int
    instructions: tuple[Instruction, ...]
    dtype: Any

    def __str__(self) -> str:
        told = [f"  {k + 2}: {each.name}{list(each.arguments)}" for k, each in enumerate(self.instructions)]
        return "\n".join([f"program {self.seed} ({np.dtype(self.dtype)}): 0 is the state, 1 the data", *told])

    def __call__(self, state: Any, data: Any) -> Any:
        pool = [state, data]
        for each in self.instructions:
            pool.append(each.function(*(pool[place] for place in each.arguments)))
        parts = [jnp.resize(told(value), (3,)) * (k + 1) for k, value in enumerate(pool[-3:])]
        return parts[0] + parts[1] + parts[2]


def told(value: Any) -> Any:
    """A finite number that tells which one it was: NaN and the infinities have numbers of their own."""
    named = jnp.where(jnp.abs(value) > 1e5, jnp.sign(value) * 1e5, value)
    return jnp.where(jnp.isnan(value), 3e5, named)


@jax.enable_x64(True)
def draw(seed: int) -> RandomProgram:
    """The program of a seed: 4 to 24 instructions; one in 16 may use what the fused engine need not have."""
    rng = np.random.default_rng(seed)
    dtype = jnp.float32 if rng.random() < 0.2 else jnp.float64
    shapes = [jax.ShapeDtypeStruct((3,), dtype), jax.ShapeDtypeStruct((2, 3), dtype)]
    kinds, odd = [UNARY, BINARY, VECTOR], rng.random()
    kinds += [DEEP] if odd > 0.75 else [RARE] if odd < 1 / 16 else []
    instructions: list[Instruction] = []
    length = int(rng.integers(4, 25))
    while len(instructions) < length:
        table = kinds[rng.choice(len(kinds), p=np.array([3, 3, 3, 1][: len(kinds)]) / sum([3, 3, 3, 1][: len(kinds)]))]
        name = str(rng.choice(sorted(table)))
        count = 2 if table is BINARY else 1
        places = tuple(int(len(shapes) - 1 - min(rng.geometric(0.3) - 1, len(shapes) - 1)) for _ in range(count))
        try:
            (out,) = jax.tree.leaves(jax.eval_shape(table[name], *(shapes[place] for place in places)))
        except (TypeError, ValueError, IndexError, ZeroDivisionError):
            continue  # not for these shapes
        if out.dtype == dtype and 0 < out.size <= 36:
            instructions.append(Instruction(name, table[name], places))
            shapes.append(jax.ShapeDtypeStruct(out.shape, out.dtype))
    return RandomProgram(seed, tuple(instructions), dtype)


def inputs(program: RandomProgram) -> tuple[np.ndarray, np.ndarray]:
    """Five trials' states [5, 3] and data [5, 2, 3]."""
    rng = np.random.default_rng([program.seed, 1])
    return rng.normal(size=(TRIALS, 3)).astype(program.dtype), rng.normal(size=(TRIALS, 2, 3)).astype(program.dtype)


class Outcome(NamedTuple):
    """`kind`: right, rejected, wrong or slow, and undecided where a rounding of the input changes everything."""

    kind: str
    seconds: float
    text: str


def judge(program: RandomProgram) -> Outcome:
    """Run one step of five trials by the fused engine, and compare it with JAX's."""
    import jaxdyn as jd
    from jaxdyn.engines import choose

    with jax.enable_x64(True):
        states, data = inputs(program)
        step = lambda state, data, lr: program(state, data)  # noqa: E731
        begin = time.process_time()  # of the processor, so that other work on the machine does not count
        chosen = choose(lambda state, data: program(state, data), None, states, data)
        seconds = time.process_time() - begin
        try:
            have = jd.descend_ensemble(step, states, data, steps=1, lr=1.0, in_axes=(None, 0, 0), engine="fused").final
        except NotImplementedError as error:
            return Outcome("slow" if seconds > SLOW else "rejected", seconds, str(error))
        want, spread = _reference(program, states, data)
        single = program.dtype == jnp.float32
        close = (1e-4 if single else 1e-9) * (1 + np.abs(want))
        wild = spread > close
        wrong = (np.abs(have - want) > close + 1e3 * spread) & ~wild
        if wrong.any():
            with jax.disable_jit():  # what XLA makes of several operations at once may be less than IEEE's
                eager = np.stack(
                    [np.asarray(program(*pair)) for pair in zip(jnp.asarray(states), jnp.asarray(data), strict=True)]
                )
            wrong &= np.abs(have - eager) > close + 1e3 * spread
        if wrong.any():
            wild |= _rounded(program, states, data, want) > close  # as a tie that rounding decides
            wrong &= ~wild
        if wrong.any():
            return Outcome("wrong", seconds, f"{program}\nfused {have[wrong]}\nJAX   {want[wrong]}")
        if seconds > SLOW:
            return Outcome("slow", seconds, f"{program}\n{chosen}")
        return Outcome("undecided" if wild.any() else "right", seconds, str(program) if wild.any() else chosen)


def _reference(program: RandomProgram, states: Any, data: Any) -> tuple[np.ndarray, np.ndarray]:
    """JAX's result, and how much it changes when the inputs are off by some roundings."""
    function = jax.jit(jax.vmap(program))
    want = np.asarray(function(states, data))
    off = _off(program, 2)
    others = [np.asarray(function(off(states), off(data))) for _ in range(4)]
    return want, np.abs(np.stack(others) - want).max(0)


def _rounded(program: RandomProgram, states: Any, data: Any, want: np.ndarray) -> np.ndarray:
    """How much the result changes when each operation's is off by some roundings."""
    others = [
        [evaluated(program, _off(program, 3 + k), *each) for each in zip(states, data, strict=True)] for k in range(8)
    ]
    return np.abs(np.array(others) - want).max(0)


def _off(program: RandomProgram, seed: int) -> Callable[[Any], Any]:
    rng, eps = np.random.default_rng([program.seed, seed]), 4 * float(jnp.finfo(program.dtype).eps)
    return lambda x: (x * (1 + eps * rng.choice([-1, 1], x.shape))).astype(x.dtype)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", type=int, default=200)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--here", action="store_true", help="in this process, one line of JSON a program")
    options = parser.parse_args()
    seed, end = options.first, options.first + options.programs
    if options.here:
        for each in range(seed, end):
            print(json.dumps([each, *judge(draw(each))]), flush=True)
        return 0
    counts: collections.Counter[str] = collections.Counter()
    longest, begin = 0.0, time.perf_counter()
    while seed < end:
        command = [sys.executable, __file__, "--here", "--first", str(seed), "--programs", str(end - seed)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            for line in child.stdout:
                each, kind, seconds, text = json.loads(line)
                counts[kind] += 1
                seed, longest = each + 1, max(longest, seconds)
                if kind in ("wrong", "slow"):
                    print(f"{kind} ({seconds:.1f} s): {text}", flush=True)
        if child.returncode:
            counts["crash"] += 1
            print(f"crash: program {seed}, exit status {child.returncode}\n{draw(seed)}", flush=True)
            seed += 1
    print(f"{options.programs:,} programs in {time.perf_counter() - begin:.0f} s: ", end="")
    kinds = ("right", "rejected", "undecided", "wrong", "slow", "crash")
    print(", ".join(f"{counts[kind]:,} {kind}" for kind in kinds), f"; longest compilation {longest:.1f} s")
    return int(any(counts[kind] for kind in ("wrong", "slow", "crash")))


if __name__ == "__main__":
    sys.exit(main())
