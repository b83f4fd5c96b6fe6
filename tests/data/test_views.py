import contextlib

import jax
import numpy as np
import pytest

from jaxdyn.data import Augmentation, digits
from jaxdyn.data.loading import load_moments, load_views
from jaxdyn.data.views import views_of
from jaxdyn.moments import Moments


def flat(views):
    return [side.reshape(-1, side.shape[-1]) for side in views]


def test_views_of_digits_are_two_views_of_the_same_images():
    views = views_of(digits(), 5, Augmentation(shift=1, noise=0.1, cutout=2), copies=2)
    assert views.source.shape == views.target.shape == (1797, 2, 5)
    moments = views.moments()
    assert moments.is_realisable
    # Exchangeable views: Y is symmetric and X = Z up to sampling; paired: Y is well above zero.
    np.testing.assert_allclose(moments.xx, moments.required_yy("the test"), atol=0.1)
    np.testing.assert_allclose(moments.yx, moments.yx.T, atol=0.1)
    assert (np.linalg.eigvalsh((moments.yx + moments.yx.T) / 2) > 0).all()
    source, target = flat(views)
    shuffled = Moments.from_views(source, np.roll(target, 700, axis=0))
    assert np.linalg.norm(shuffled.yx) < 0.5 * np.linalg.norm(moments.yx)


def test_undistorted_digits_have_unit_mean_variance_and_equal_views():
    views = views_of(digits(), 8, Augmentation(), copies=1)
    np.testing.assert_array_equal(views.source, views.target)
    source, _ = flat(views)
    np.testing.assert_allclose(np.mean(source, 0), 0, atol=1e-6)  # the images are in single precision
    covariance = np.asarray(source.T @ source) / len(source)
    np.testing.assert_allclose(np.trace(covariance) / 8, 1, atol=1e-6)
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-6)


def test_views_repeat_with_the_key_and_every_command_sees_the_same():
    first, again, other = (views_of(digits(), 2, copies=1, key=jax.random.key(k)) for k in (0, 0, 1))
    np.testing.assert_array_equal(first.source, again.source)
    assert not np.array_equal(first.source, other.source)
    np.testing.assert_array_equal(load_moments("digits", 2, seed=3).xx,
                                  views_of(digits(), 2, key=jax.random.key(3)).moments().xx)  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"m": 0}, "m: expected"), ({"m": 64}, "m: expected at most 61"), ({}, "m: expected a number of dimensions"),
     ({"m": 2, "copies": 0}, "copies"), ({"m": 2, "augmentation": Augmentation(shift=8)}, "shift")],
)  # fmt: skip
def test_bad_views_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        views_of(digits(), **arguments)


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 2, 3))
    return x, x + 0.1 * rng.normal(size=x.shape)


def test_user_files_in_every_accepted_form(tmp_path, arrays):
    x, y = arrays
    np.savez(tmp_path / "named.npz", x=x, y=y, label=np.arange(40))
    np.savez(tmp_path / "two.npz", x, y)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    for location in ("named.npz", "two.npz"):
        views = load_views(str(tmp_path / location))
        np.testing.assert_array_equal(views.source[:, 0], x.reshape(40, 6))
        np.testing.assert_array_equal(views.target[:, 0], y.reshape(40, 6))
    centred = load_views(tmp_path / "named.npz", m=6)  # asked for all dimensions: centred and turned all the same
    np.testing.assert_allclose(np.mean([centred.source, centred.target], (0, 1, 2)), 0, atol=1e-12)
    views = load_views(f"{tmp_path / 'x.npy'},{tmp_path / 'y.npy'}", m=3)
    assert views.source.shape == (40, 1, 3)
    # The projection keeps what varies most: its variance is the sum of the largest eigenvalues.
    both = np.concatenate([x, y]).reshape(80, 6)
    top = np.linalg.eigvalsh(np.cov(both.T, bias=True))[-3:].sum()
    kept = np.concatenate(flat(views))
    scale = np.sqrt(top / 3)  # unit mean variance
    np.testing.assert_allclose(kept.var(0).sum() * scale**2, top)


def test_unreadable_view_files_get_one_line(tmp_path, arrays):
    x, _ = arrays
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "short.npy", x[:10])
    np.save(tmp_path / "narrow.npy", x[:, :1])
    np.savez(tmp_path / "three.npz", a=x, b=x, c=x)
    (tmp_path / "text.npz").write_text("not an archive")
    (tmp_path / "empty.npy").touch()
    np.save(tmp_path / "objects.npy", np.array([{}, {}], dtype=object), allow_pickle=True)
    cut = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "cut.npy").write_bytes(cut[: len(cut) // 2])
    at = lambda name: str(tmp_path / name)  # noqa: E731
    for location, message in [
        (at("missing.npz"), "no such file"),
        (at("text.npz"), "not a readable"),
        (at("empty.npy"), "expected an .npz|not a readable"),
        (at("cut.npy"), "not a readable"),
        (at("objects.npy"), "not a readable"),
        (at("x.npy"), "m: expected a number of dimensions to keep"),
        (at("three.npz"), "expected arrays named x and y"),
        (f"{at('x.npy')},{at('short.npy')}", "y: expected as many samples"),
        (f"{at('x.npy')},{at('narrow.npy')}", "same size"),
        (str(tmp_path), "unknown data set"),
    ]:
        with pytest.raises(ValueError, match=message):
            load_views(location)
    np.savez_compressed(tmp_path / "good.npz", x=x, y=x)
    whole = (tmp_path / "good.npz").read_bytes()
    for place in range(60, len(whole), 97):  # one damaged byte anywhere: read anyway, or refused in a line
        (tmp_path / "damaged.npz").write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        with contextlib.suppress(ValueError):  # and nothing else
            load_views(at("damaged.npz"))
    with pytest.raises(ValueError, match="m: expected at most 6"):
        load_views(at("good.npz"), m=7)
