"""Data sets: bundled ones, the user's, CIFAR-10 and STL-10 files made here; what is wrong with one, in one line."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdyn.data import (
    Augmentation,
    cifar10,
    clips,
    digits,
    from_images,
    from_source,
    from_views,
    patches,
    stl10,
)
from jaxdyn.data.bundled import photographs
from jaxdyn.data.loading import load_dataset

RNG = np.random.default_rng(0)


def test_digits_are_whole_and_split():
    data = digits()
    assert (len(data.train), len(data.held_out), data.shape, data.n_classes) == (1437, 360, (8, 8, 1), 10)
    assert data.train.source.min() >= 0
    assert data.train.source.max() <= 1
    assert data.train.source.dtype == np.float32


def test_patches_come_from_their_photograph_and_side():
    data = patches(side=8, per_photograph=3)
    assert len(data.train) == 3 * len(photographs())
    for split, is_left in ((data.train, True), (data.held_out, False)):
        for patch, label in zip(split.source[..., 0], split.labels, strict=True):
            photo = photographs()[label]
            edge = round(0.8 * photo.shape[1])
            windows = np.lib.stride_tricks.sliding_window_view(photo, (8, 8))
            rows, columns = np.nonzero((windows == patch).all((2, 3)))
            assert any((c + 8 <= edge) if is_left else (c >= edge) for c in columns), (label, rows, columns)


def test_clips_move_at_constant_velocity_but_for_the_jitter():
    data = clips(side=8, frames=4, per_photograph=2, labels="motion")
    compass = np.array([(1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1)])
    count = len(photographs())
    matched = 0
    for index, (clip, motion) in enumerate(zip(data.train.source[..., 0], data.train.labels, strict=True)):
        windows = np.lib.stride_tricks.sliding_window_view(photographs()[index // 2], (8, 8))
        places = [np.argwhere((windows == frame).all((2, 3))) for frame in clip]
        if any(len(place) != 1 for place in places):
            continue  # a featureless patch of sky
        path = np.concatenate(places)
        # Jitter of 0 or 1 pixel: the mean velocity over three steps is the direction times the speed, within a third.
        velocity = (path[-1] - path[0]) / 3
        speeds = [np.abs(velocity - s * compass[motion]).max() for s in (1, 2, 3)]
        assert min(speeds) <= 1 / 3 + 1e-9
        matched += 1
    assert matched > count


def _cifar_files(folder, images, labels):
    """CIFAR-10's binary layout: label byte, then red, green and blue planes, row by row."""
    planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    records = np.concatenate([labels[:, None], planes], 1).astype(np.uint8)
    records[:30].tofile(folder / "data_batch_1.bin")
    records[30:].tofile(folder / "test_batch.bin")


def test_cifar_files_are_read_back(tmp_path):
    images = RNG.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(40) % 10
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    _cifar_files(folder, images, labels)
    data = load_dataset(f"cifar10:{tmp_path}")
    np.testing.assert_array_equal(data.train.source, images[:30].astype(np.float32) / 255)
    np.testing.assert_array_equal(data.held_out.labels, labels[30:])
    assert len(cifar10(folder, limit=5).train) == 5
    (folder / "test_batch.bin").write_bytes(b"x" * 3000)
    with pytest.raises(ValueError, match=r"test_batch.bin: expected a multiple of 3073 bytes, got 3000"):
        cifar10(folder)
    (folder / "test_batch.bin").write_bytes(b"\xff" * 3073)
    with pytest.raises(ValueError, match="expected labels 0 to 9, got 255"):
        cifar10(folder)
    with pytest.raises(ValueError, match="no such folder"):
        cifar10(tmp_path / "nowhere")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ValueError, match="no CIFAR-10 binary files here"):
        cifar10(empty)


def test_stl_files_are_read_back(tmp_path):
    images = RNG.integers(0, 256, (12, 96, 96, 3), dtype=np.uint8)
    labels = (np.arange(12) % 10 + 1).astype(np.uint8)
    for part, rows in (("train", slice(0, 8)), ("test", slice(8, 12))):
        # Planes, column by column.
        images[rows].transpose(0, 3, 2, 1).tofile(tmp_path / f"{part}_X.bin")
        labels[rows].tofile(tmp_path / f"{part}_y.bin")
    data = stl10(tmp_path)
    np.testing.assert_array_equal(data.train.source, images[:8].astype(np.float32) / 255)
    np.testing.assert_array_equal(data.train.labels, labels[:8] - 1)
    labels[:3].tofile(tmp_path / "test_y.bin")
    with pytest.raises(ValueError, match="expected 4 labels, got 3"):
        stl10(tmp_path)
    with pytest.raises(ValueError, match=r"unlabeled_X.bin: No such file"):
        stl10(tmp_path, unlabeled=True)


class Items:
    """A map-style data set, as torchvision's are."""

    def __init__(self, images, labels):
        self.images, self.labels = images, labels

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index], int(self.labels[index])


def test_any_source_gives_the_same_data_set():
    images = RNG.integers(0, 256, (40, 6, 6, 3), dtype=np.uint8)
    labels = np.arange(40) % 4
    want = from_images(images, labels)
    mappings = [{"image": image, "label": label} for image, label in zip(images, labels, strict=True)]
    batches = ((images[at : at + 7], labels[at : at + 7]) for at in range(0, 40, 7))
    for source in (Items(images, labels), mappings, batches):
        found = from_source(source)
        for a, b in zip(want.train + want.held_out, found.train + found.held_out, strict=True):
            if a is not None:
                np.testing.assert_array_equal(a, b)
    assert len(from_source(Items(images, labels), limit=20).train) == 16


def _endless():
    while True:
        yield RNG.random((8, 5, 5))


def test_an_endless_iterator_is_cut():
    data = from_source(_endless(), limit=20)
    assert len(data.train) + len(data.held_out) == 20
    assert data.shape == (5, 5, 1)


GOOD = RNG.random((20, 4, 4))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: from_images(np.where(np.arange(320).reshape(20, 4, 4) == 37, np.nan, GOOD)), "infinity in sample 2"),
        (lambda: from_images(np.broadcast_to(np.arange(20)[:, None, None], (20, 4, 4))), "all 20 are constant"),
        (lambda: from_images(np.broadcast_to(GOOD[:1], (20, 4, 4))), "all 20 are equal"),
        (lambda: from_images(GOOD[:5]), "at least 10 samples"),
        (lambda: from_images(np.array(["a"] * 20)), "rectangular array of real numbers"),
        (lambda: from_images([[1, 2], [3]]), "rectangular array of real numbers"),
        (lambda: from_images(GOOD, np.arange(19)), "one for each of 20 samples, got 19"),
        (lambda: from_images(GOOD, np.zeros(20, int)), "at least two classes"),
        (lambda: from_images(GOOD, np.full(20, 0.5)), "one class label a sample"),
        (lambda: from_images(GOOD, held_out=0.0), "held_out"),
        (lambda: from_views(GOOD, GOOD[:19]), "expected as many views as x, got 19 and 20"),
        (lambda: from_views(GOOD, RNG.random((20, 5))), r"expected views of shape \(4, 4\) like x"),
        (lambda: from_source(3), "expected a data set or an iterator of batches, got int"),
        (lambda: from_source([]), "at least two samples, got none"),
        (lambda: from_source([{"picture": 1}]), "item 0 has no 'image', only picture"),
        (lambda: from_source([("cat.png", 1)] * 12), "item 0: expected an array of numbers, got str"),
        (lambda: from_source([np.ones((4, 4)), np.ones((5, 5))]), "images of one shape"),
        (lambda: from_source([(GOOD[0], 1), GOOD[1]]), "a label with every image or with none"),
        (lambda: load_dataset("digit"), "unknown data set 'digit'"),
        (lambda: load_dataset("nowhere.npz"), "nowhere.npz: no such file"),
        (lambda: clips(side=64), "side"),
    ],
)  # fmt: skip
def test_bad_data_gets_one_line(make, message):
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_files_of_the_users(tmp_path):
    np.savez(tmp_path / "a.npz", images=GOOD, labels=np.arange(20) % 2)
    np.savez(tmp_path / "b.npz", x=GOOD, y=GOOD + 0.1)
    np.savez(tmp_path / "c.npz", z=GOOD)
    np.savez(tmp_path / "d.npz", x=GOOD, y=GOOD[:12])
    assert load_dataset(str(tmp_path / "a.npz")).n_classes == 2
    assert load_dataset(str(tmp_path / "b.npz")).is_paired
    with pytest.raises(ValueError, match="expected arrays named images, or x and y, got z"):
        load_dataset(str(tmp_path / "c.npz"))
    with pytest.raises(ValueError, match=r"d.npz: y: expected as many views"):
        load_dataset(str(tmp_path / "d.npz"))


def _views(augmentation, image, count=200, seed=0):
    keys = jax.random.split(jax.random.key(seed), count)
    return np.asarray(jax.vmap(augmentation, (0, None))(keys, jnp.asarray(image)))


def test_each_augmentation_does_what_it_says():
    image = RNG.random((6, 8, 2)).astype(np.float32)
    np.testing.assert_array_equal(_views(Augmentation(), image, 3), np.broadcast_to(image, (3, 6, 8, 2)))
    padded = np.pad(image, ((2, 2), (2, 2), (0, 0)))
    moves = {padded[i : i + 6, j : j + 8].tobytes() for i in range(5) for j in range(5)}
    assert {view.tobytes() for view in _views(Augmentation(shift=2), image, 400)} == moves
    flipped = {image.tobytes(), np.ascontiguousarray(image[:, ::-1]).tobytes()}
    assert {view.tobytes() for view in _views(Augmentation(flip=True), image, 40)} == flipped
    holes = (_views(Augmentation(cutout=3), image) == 0).all(-1)
    assert (holes.sum((1, 2)) == 9).all()
    assert holes.any(0).all()  # also the corners
    noisy = _views(Augmentation(noise=0.1), image, 500) - image
    assert abs(noisy.std() - 0.1) < 4 * 0.1 / np.sqrt(2 * noisy.size)
    bright = _views(Augmentation(contrast=0.5, brightness=0.2), image, 500)
    factors = bright.reshape(500, -1).std(1) / image.std()
    offsets = bright.reshape(500, -1).mean(1) - image.mean()
    assert 0.5 <= factors.min() < 0.55
    assert 1.45 < factors.max() <= 1.5 + 1e-5
    assert 0.18 < np.abs(offsets).max() <= 0.2 + 1e-5


def test_crops_resample_linearly():
    # A linear ramp, cropped and resized, is a ramp again: its slope is the crop's share, inside the image.
    ramp = np.broadcast_to(np.arange(16.0)[:, None, None], (16, 16, 1)).astype(np.float32)
    for view in _views(Augmentation(crop=0.4), ramp, 50)[..., 0]:
        slopes = np.diff(view, axis=0)[2:-2]
        assert np.ptp(slopes) < 1e-4
        assert 0.4 - 1e-4 <= slopes.mean() <= 1 + 1e-4
    clip = RNG.random((3, 6, 6, 1)).astype(np.float32)
    moved = Augmentation(crop=0.5, shift=1, cutout=2)(jax.random.key(0), jnp.asarray(clip))
    one = [Augmentation(crop=0.5, shift=1, cutout=2)(jax.random.key(0), jnp.asarray(frame)) for frame in clip]
    np.testing.assert_allclose(moved, np.stack(one), atol=1e-6)  # all frames alike


@pytest.mark.parametrize(
    ("settings", "message"), [({"crop": 0.0}, "crop"), ({"shift": -1}, "shift"), ({"noise": -0.1}, "noise")]
)
def test_augmentations_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        Augmentation(**settings)
    with pytest.raises(ValueError, match="cutout: expected less than the image's side 4"):
        Augmentation(cutout=4).check((4, 6, 1))
    with pytest.raises(ValueError, match="need images, got samples of shape"):
        Augmentation(shift=1).check((12,))
    Augmentation(noise=0.1).check((12,))
