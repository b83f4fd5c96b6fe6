"""Second moments of paired views: all that the linear dynamics see of the data."""

import warnings
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from .arrays import (
    ArrayLike,
    ScalarLike,
    float_dtype,
    floating_dtype,
    in_float64_unless_traced,
    is_traced,
    matrix,
    random_key,
    rounding_slack,
    scalar,
)
from .checks import whole_number, yes_or_no
from .linear import after


class Moments(eqx.Module):
    """Uncentred second moments of a source view x and a target view y, both in R^m.

        xx = E[x xᵀ]  (the papers' X, Σˢ),   yx = E[y xᵀ]  (Y, Σᵈ),   yy = E[y yᵀ]  (Z)

    Stop gradient and moving average are driven by `xx` and `yx` alone; the plain objective and
    the energies E and F also need `yy`. Any `yx` is accepted, since the dynamics are defined for
    all of them; `is_realisable` says whether a pair of random views with these moments exists.
    Kept in float64 unless the arrays are float32, whatever JAX's own setting is.

    Args:
        xx: shape [m, m], symmetric positive semidefinite, in squared units of the data.
        yx: shape [m, m].
        yy: shape [m, m], symmetric positive semidefinite, or None if it is not known.

    Warns:
        UserWarning: if `yy` is given and no pair of views has these moments.

    Raises:
        ValueError: if a shape, the symmetry, definiteness or finiteness does not hold.

    Example:
        >>> moments = Moments([[1.0, 0.0], [0.0, 1.5]], [[0.8, 0.1], [0.0, 0.9]])
        >>> moments.m
        2

    Source: P §4 (X, Y); T §2 and App. B (Σˢ, Σᵈ).
    """

    xx: Float[Array, "m m"]
    yx: Float[Array, "m m"]
    yy: Float[Array, "m m"] | None

    @in_float64_unless_traced
    def __init__(self, xx: ArrayLike, yx: ArrayLike, yy: ArrayLike | None = None):
        named = {"xx": xx, "yx": yx} | ({} if yy is None else {"yy": yy})
        arrays = {name: matrix(name, value, square=True) for name, value in named.items()}
        dtype = jnp.result_type(*arrays.values())
        shape = arrays["xx"].shape
        for name, array in arrays.items():
            if array.shape != shape:
                raise ValueError(f"{name}: expected shape {shape} like xx, got {array.shape}")
            if name != "yx":
                _check_semidefinite(name, array)
        self.xx = arrays["xx"].astype(dtype)
        self.yx = arrays["yx"].astype(dtype)
        self.yy = arrays["yy"].astype(dtype) if yy is not None else None
        if yy is not None and not is_traced(*arrays.values()) and not self.is_realisable:
            warnings.warn("no views have these moments: (xx, yx; yx, yy) is not positive semidefinite", stacklevel=4)

    @property
    def m(self) -> int:
        """Input dimension."""
        return self.xx.shape[-1]

    @property
    @in_float64_unless_traced
    def is_realisable(self) -> bool:
        """Whether some pair of views has these moments: the joint moment matrix of (x, y) is PSD."""
        yy = self.required_yy("is_realisable")
        xx, yx, yy = (np.asarray(part, np.float64) for part in (self.xx, self.yx, yy))
        joint = np.block([[xx, yx.T], [yx, yy]])
        return _is_positive_semidefinite(joint, rounding_slack(self.xx.dtype))

    def in_working_precision(self) -> "Moments":
        """The same in the precision JAX computes in here: float32 unless x64 is enabled."""
        return jax.tree.map(lambda leaf: jnp.asarray(leaf, jax.dtypes.canonicalize_dtype(leaf.dtype)), self)

    def required_yy(self, purpose: str) -> Float[Array, "m m"]:
        """`yy`, or a ValueError that names who needs it."""
        if self.yy is None:
            raise ValueError(
                f"yy: {purpose} needs the target's second moment E[y yᵀ], but these Moments have none; "
                "pass Moments(xx, yx, yy)"
            )
        return self.yy

    def __repr__(self) -> str:
        if is_traced(self):
            return f"Moments(traced, shape {list(jnp.shape(self.xx))})"
        if jnp.ndim(self.xx) != 2:
            return f"Moments(of {list(self.xx.shape[:-2])} problems, m = {self.m})"
        parts = [("xx", self.xx), ("yx", self.yx)] + ([] if self.yy is None else [("yy", self.yy)])
        shown = [f"{name}={_numbers(np.asarray(part))}" for name, part in parts]
        if self.m > 4:
            shown = [f"{name} of norm {np.linalg.norm(np.asarray(part)):.4g}" for name, part in parts]
        return f"Moments(m = {self.m}, {', '.join(shown)})"

    @classmethod
    @in_float64_unless_traced
    def scalar(cls, rho: ScalarLike, tau: ScalarLike, target: ScalarLike | None = None) -> "Moments":
        """m = 1: E[x²] = `rho`, E[yx] = `tau`, E[y²] = `target` (P §4).

        Without `target`, yy is the smallest value not below `rho` for which the views exist,
        max(ρ, τ²/ρ): views of equal power where that is possible. (ρ = 0 with τ ≠ 0 has no such
        value; yy is |τ| then.)
        """
        rho, tau = scalar("rho", rho, low=0), scalar("tau", tau)
        rho, tau = (jnp.asarray(value, float_dtype(value)) for value in (rho, tau))
        if target is None:
            positive = rho > 0
            target = jnp.where(positive, jnp.maximum(rho, tau**2 / jnp.where(positive, rho, 1)), jnp.abs(tau))
        else:
            target = jnp.asarray(scalar("target", target, low=0))
        return cls(*(jnp.reshape(value, (1, 1)) for value in (rho, tau, target)))

    @classmethod
    @in_float64_unless_traced
    def isotropic(cls, m: int, sigma: ScalarLike) -> "Moments":
        """Unit data with isotropic augmentation noise of standard deviation `sigma` (T §3).

        x = u + σn, y = u + σn′ with u, n, n′ independent standard: Σˢ = (1 + σ²)I, Σᵈ = I.
        """
        sigma = scalar("sigma", sigma, low=0)
        eye = jnp.eye(whole_number("m", m), dtype=float_dtype(sigma))
        total = (1 + sigma**2) * eye
        return cls(total, eye, total)

    @classmethod
    @in_float64_unless_traced
    def additive_scrambling(cls, data: ArrayLike, noise: ArrayLike) -> "Moments":
        """x = u + n, y = u + n′ with independent noises of second moment `noise` (T App. D.2).

        Σˢ = Σᵘ + Σⁿ, Σᵈ = Σᵘ. Both arguments have shape [m, m].
        """
        signal, disturbance = _second_moment("data", data), _second_moment("noise", noise)
        if signal.shape != disturbance.shape:
            raise ValueError(f"noise: expected shape {signal.shape} like data, got {disturbance.shape}")
        total = signal + disturbance
        return cls(total, signal, total)

    @classmethod
    @in_float64_unless_traced
    def multiplicative_scrambling(cls, data: ArrayLike, subspace: ArrayLike) -> "Moments":
        """x = (P + U G Uᵀ)u, y = (P + U G′ Uᵀ)u with standard Gaussian G, G′ (T App. D.2).

        P = I − U Uᵀ. Taking expectations over G (E[G] = 0, E[G M Gᵀ] = tr(M) I):

            Σᵈ = P Σ P,   Σˢ = P Σ P + tr(Uᵀ Σ U) U Uᵀ,   Σ = E[u uᵀ].

        The paper prints Σˢ = Σ, which differs unless Σ commutes with P and Uᵀ Σ U = tr(Uᵀ Σ U) I.

        Args:
            data: Σ, shape [m, m].
            subspace: U, shape [m, k], orthonormal columns that span what augmentation scrambles.
        """
        sigma = _second_moment("data", data)
        u = matrix("subspace", subspace).astype(sigma.dtype)
        if u.shape[0] != sigma.shape[0] or not 1 <= u.shape[1] <= u.shape[0]:
            raise ValueError(f"subspace: expected shape ({sigma.shape[0]}, k) with 1 <= k <= m, got {u.shape}")
        if not is_traced(u) and not np.allclose(u.T @ u, np.eye(u.shape[1]), atol=rounding_slack(u.dtype)):
            raise ValueError("subspace: expected orthonormal columns (Uᵀ U = I)")
        keep = jnp.eye(sigma.shape[0], dtype=sigma.dtype) - u @ u.T
        shared = keep @ sigma @ keep
        total = shared + jnp.trace(u.T @ sigma @ u) * (u @ u.T)
        return cls(_symmetrised(total), _symmetrised(shared), _symmetrised(total))

    @classmethod
    @in_float64_unless_traced
    def random(
        cls, key: PRNGKeyArray, m: int, *, correlation: float = 0.7, symmetric: bool = False, dtype: Any = None
    ) -> "Moments":
        """Generic realisable moments: y = c·Rx + noise for a random X, R and noise level.

        X and the noise are Wishart with 2m degrees of freedom (mean I); R is a random matrix of
        spectral norm 1 (symmetric, and sharing no eigenvectors with X, if `symmetric`); `correlation`
        c in [0, 1] sets how much of y follows from x. The joint second moment of (x, y) is PSD.
        """
        m = whole_number("m", m, high=10_000)
        symmetric = yes_or_no("symmetric", symmetric)
        correlation = scalar("correlation", correlation, low=0, high=1)
        dtype = float_dtype(None) if dtype is None else floating_dtype("dtype", dtype)
        key_x, key_r, key_n = jax.random.split(random_key("key", key), 3)
        xx = _symmetrised(_wishart(key_x, m, dtype))
        if symmetric:
            # Y = c·X^{1/2} Q X^{1/2} with symmetric contraction Q: symmetric, and [X Y; Y X] is PSD.
            q = jax.random.normal(key_r, (m, m), dtype)
            q = q @ q.T
            q = q / jnp.linalg.norm(q, ord=2)
            values, vectors = jnp.linalg.eigh(after(xx, q))
            root = (vectors * jnp.sqrt(values)) @ vectors.T
            return cls(xx, correlation * _symmetrised(root @ q @ root), xx)
        r = jax.random.normal(key_r, (m, m), dtype)
        yx = correlation * (r / jnp.linalg.norm(r, ord=2)) @ xx
        noise = (1 - correlation**2) * _wishart(key_n, m, dtype)
        explained = yx @ jnp.linalg.solve(after(xx, yx), yx.T)
        return cls(xx, yx, _symmetrised(explained + noise))

    @classmethod
    @in_float64_unless_traced
    def from_views(cls, x: ArrayLike, y: ArrayLike) -> "Moments":
        """Sample second moments of paired views, one pair a row.

        Args:
            x, y: shape [samples, m] each; row i of both comes from the same underlying sample.
                The moments are uncentred: subtract the mean first if that is what you want.

        Raises:
            ValueError: for unequal lengths, NaN or infinity, or a view that never varies.
        """
        x, y = check_views(x, y)
        if x.shape[1] != y.shape[1]:
            raise ValueError(f"y: expected {x.shape[1]} columns like x, got {y.shape[1]}")
        dtype = jnp.result_type(float_dtype(x), float_dtype(y))
        x, y = jnp.asarray(x, dtype), jnp.asarray(y, dtype)
        samples = x.shape[0]
        return cls(_symmetrised(x.T @ x) / samples, y.T @ x / samples, _symmetrised(y.T @ y) / samples)


def check_views(x: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Two arrays of paired views as [samples, features], or a ValueError that says what is wrong."""
    checked = []
    for name, view in (("x", x), ("y", y)):
        view = np.asarray(view)
        if view.dtype.kind not in "fiub":
            raise ValueError(f"{name}: expected a numeric array, got dtype {view.dtype}")
        if view.ndim < 2:
            raise ValueError(f"{name}: expected shape [samples, features...], got {view.shape}")
        if view.size == 0:
            raise ValueError(f"{name}: expected at least two samples and one feature, got shape {view.shape}")
        view = view.reshape(view.shape[0], -1)
        if view.dtype.kind != "f" or view.dtype.itemsize < 4:
            view = view.astype(np.float64)  # also float16, whose products overflow
        if view.shape[0] < 2 or view.shape[1] < 1:
            raise ValueError(f"{name}: expected at least two samples and one feature, got {view.shape}")
        if not np.isfinite(view).all():
            raise ValueError(f"{name}: expected finite numbers, got NaN or infinity")
        if (view == view[0]).all():
            raise ValueError(f"{name}: the view is constant, every sample is the same")
        checked.append(view)
    if checked[0].shape[0] != checked[1].shape[0]:
        raise ValueError(
            f"y: expected as many samples as x, {checked[0].shape[0]}, got {checked[1].shape[0]}; "
            "row i of both must be two views of the same sample"
        )
    return checked[0], checked[1]


def _numbers(array: np.ndarray) -> str:
    return "[" + ", ".join("[" + ", ".join(f"{value:.4g}" for value in row) + "]" for row in array) + "]"


def _second_moment(name: str, value: ArrayLike) -> jax.Array:
    array = matrix(name, value, square=True)
    _check_semidefinite(name, array)
    return array


def _check_semidefinite(name: str, array: jax.Array) -> None:
    if is_traced(array):
        return
    values, slack = np.asarray(array, np.float64), rounding_slack(array.dtype)
    if (asymmetry := np.abs(values - values.T).max()) > slack * np.abs(values).max():
        raise ValueError(f"{name}: expected a symmetric matrix, got |M - Mᵀ| up to {asymmetry:.3g}")
    if not _is_positive_semidefinite(values, slack):
        raise ValueError(
            f"{name}: expected a positive semidefinite matrix, got smallest eigenvalue "
            f"{np.linalg.eigvalsh(values)[0]:.6g}"
        )


def _is_positive_semidefinite(values: np.ndarray, slack: float) -> bool:
    eigenvalues = np.linalg.eigvalsh(values)
    return bool(eigenvalues[0] >= -slack * max(eigenvalues[-1], 0.0))


def _symmetrised(matrix: jax.Array) -> jax.Array:
    return (matrix + matrix.T) / 2


def _wishart(key: PRNGKeyArray, m: int, dtype: Any) -> jax.Array:
    """A random positive definite [m, m] with mean I: Wishart with 2m degrees of freedom."""
    g = jax.random.normal(key, (m, 2 * m), dtype)
    return g @ g.T / (2 * m)
