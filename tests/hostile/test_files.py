"""Files and folders that others could have made: kernels under another's name, archives that fill the memory."""

import os
import shutil
import zipfile

import numpy as np
import pytest

import jaxdyn as jd
from jaxdyn.caching import read_whole, write_whole


def test_a_kernel_under_anothers_name_is_not_run(tmp_path):
    folder = tmp_path / "kernels"
    write_whole(folder / "one.o", b"machine code", "*.o")
    assert read_whole(folder / "one.o") == b"machine code"
    shutil.copy(folder / "one.o", folder / "two.o")
    assert read_whole(folder / "two.o") is None
    content = (folder / "one.o").read_bytes()
    for damaged in (content[:-1], content + b"x", content[:40], b"", b"junk" * 20):
        (folder / "one.o").write_bytes(damaged)
        assert read_whole(folder / "one.o") is None


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="permissions of POSIX")
@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_a_cache_that_others_can_write_is_none(mode, tmp_path):
    folder = tmp_path / "kernels"
    write_whole(folder / "one.o", b"machine code", "*.o")
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "one.o").stat().st_mode & 0o777 == 0o600
    folder.chmod(mode)
    assert read_whole(folder / "one.o") is None
    write_whole(folder / "two.o", b"machine code", "*.o")
    assert not (folder / "two.o").exists()
    folder.chmod(0o700)
    (folder / "one.o").chmod(0o666)
    assert read_whole(folder / "one.o") is None


def bomb(path, megabytes=400):
    """An archive of zeros that unpacks to a thousand times its size."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x.npy", "w") as member:
        header = {"descr": "<f8", "fortran_order": False, "shape": (megabytes * 2**17, 1)}
        np.lib.format.write_array_header_1_0(member, header)
        for _ in range(megabytes):
            member.write(bytes(2**20))


@pytest.mark.parametrize("load", [jd.load_moments, jd.load_dataset])
def test_an_archive_that_would_fill_the_memory_is_not_read(load, tmp_path):
    bomb(tmp_path / "bomb.npz")
    with pytest.raises(ValueError, match=r"bomb\.npz: 0\.4 GB unpacked from .* MB: refused"):
        load(str(tmp_path / "bomb.npz"))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x93NUMPY", b"text\n", np.zeros(3).tobytes()])
@pytest.mark.parametrize("load", [jd.load_moments, jd.load_dataset])
@pytest.mark.parametrize("ending", [".npz", ".npy"])
def test_files_of_another_kind_are_one_line(load, content, ending, tmp_path):
    path = tmp_path / f"file{ending}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="file") as refused:
        load(str(path))
    assert "\n" not in str(refused.value)


def test_nothing_is_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    np.savez(tmp_path / "trap.npz", x=np.array([Trap()], object), y=np.zeros((2, 2)))
    np.save(tmp_path / "trap.npy", np.array([Trap()], object))
    for name in ("trap.npz", "trap.npy"):
        for load in (jd.load_moments, jd.load_dataset):
            with pytest.raises(ValueError, match="trap"):
                load(str(tmp_path / name))
    assert not (tmp_path / "sprung").exists()


def test_results_cannot_be_changed():
    found = jd.equilibria(jd.StopGradient(0.1), jd.Moments.scalar(1.0, 0.8))
    with pytest.raises(ValueError, match="read-only"):
        found[1].gram[0, 0] = 99.0
