"""Programs kept on disk: the numbers of `jax.jit`, and no other program's, whatever lies there."""

import os
import subprocess
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdyn.cli.memory import forget_programs
from jaxdyn.engines import kept
from jaxdyn.engines.kept import Kept


class Pair(NamedTuple):
    first: Any
    second: dict


def spread(pair, scale):
    return Pair(jnp.sin(pair.first) * scale, {"whole": pair.second["whole"] + 1, "even": pair.second["whole"] % 2 == 0})


PAIR = Pair(np.linspace(0, 1, 7), {"whole": np.arange(3, dtype=np.int32)})


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Kept here, though this process has JAX's own cache: what comes out of that one cannot be kept again."""
    monkeypatch.setenv("JAXDYN_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(kept, "_applies", lambda: True)
    usual = jax.config.jax_persistent_cache_min_compile_time_secs  # pyright: ignore[reportAttributeAccessIssue]
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1e9)
    yield tmp_path / "programs"
    jax.config.update("jax_persistent_cache_min_compile_time_secs", usual)


def equal(have, want):
    assert jax.tree.structure(have) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(have), jax.tree.leaves(want), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_it_is_what_jit_gives(folder):
    equal(Kept(spread)(PAIR, 2.5), jax.jit(spread)(PAIR, np.float64(2.5)))
    assert len(list(folder.iterdir())) == 1
    with jax.enable_x64(False):  # numbers of the caller's precision
        equal(Kept(spread)(PAIR, 2.5), jax.jit(spread)(PAIR, 2.5))
    assert len(list(folder.iterdir())) == 2


def test_what_is_kept_is_not_compiled_again(folder, monkeypatch):
    program = Kept(spread)
    want = program(PAIR, 2.5)
    monkeypatch.setattr(jax.stages.Lowered, "compile", lambda *_: pytest.fail("compiled again"))
    equal(program(PAIR, 2.5), want)  # in this process
    equal(Kept(spread)(PAIR, 2.5), want)  # from the disk


def test_another_formula_shape_or_setting_is_another_program(folder):
    formulas = [lambda x: jnp.sin(x) * 2, lambda x: jnp.sin(x) * 3]
    for formula in formulas:
        for x in (np.ones(3), np.ones(4), np.ones(3, np.float32)):
            np.testing.assert_array_equal(Kept(formula)(x), formula(x))
    assert len(list(folder.iterdir())) == 6
    draw = Kept(lambda seed: jax.random.uniform(jax.random.key(seed), (4,)))
    for partitionable in (True, False):
        with jax.threefry_partitionable(partitionable):
            np.testing.assert_array_equal(draw(3), jax.random.uniform(jax.random.key(3), (4,)))


@pytest.mark.parametrize("damage", ["cut", "another", "empty", "others may write"])
def test_damaged_files_are_not_believed(damage, folder):
    want = Kept(spread)(PAIR, 2.5)
    (stored,) = folder.iterdir()
    content = stored.read_bytes()
    stored.write_bytes({"cut": content[:-9], "another": os.urandom(len(content)), "empty": b""}.get(damage, content))
    if damage == "others may write":
        stored.chmod(0o666)
    equal(Kept(spread)(PAIR, 2.5), want)


def test_a_program_that_cannot_be_loaded_or_run_is_compiled(folder, monkeypatch):
    """As of another build of XLA under the same version."""
    want = Kept(spread)(PAIR, 2.5)
    (stored,) = folder.iterdir()
    kept.write_whole(stored, b"whole, but no program", "*.xla")
    equal(Kept(spread)(PAIR, 2.5), want)

    def fail(*_):
        raise RuntimeError("a function is not found")

    monkeypatch.setattr(kept.serialize_executable, "deserialize_and_load", lambda *_: fail)
    equal(Kept(spread)(PAIR, 2.5), want)


@pytest.mark.parametrize("place", ["", "/proc/nowhere"])
def test_without_a_folder_it_is_compiled(place, folder, monkeypatch):
    monkeypatch.setenv("JAXDYN_CACHE_DIR", place)
    equal(Kept(spread)(PAIR, 2.5), jax.jit(spread)(PAIR, 2.5))


def test_code_for_one_processor_is_not_run_on_another(folder, monkeypatch):
    Kept(spread)(PAIR, 2.5)
    monkeypatch.setattr(kept, "processor", lambda: "another")
    Kept(spread)(PAIR, 2.5)
    assert len(list(folder.iterdir())) == 2


def test_inside_transformations_it_is_the_function(folder):
    square = Kept(lambda x: x * x)
    assert jax.grad(square)(3.0) == 6
    np.testing.assert_array_equal(jax.vmap(square)(jnp.arange(3.0)), [0, 1, 4])
    assert not folder.exists()


def test_what_calls_back_into_python_is_compiled_and_not_kept(folder):
    doubled = Kept(lambda x: jax.pure_callback(lambda y: 2 * y, jax.ShapeDtypeStruct(x.shape, x.dtype), x))
    np.testing.assert_array_equal(doubled(np.arange(3.0)), [0, 2, 4])
    assert not folder.exists()


def test_programs_are_let_go_of(folder, monkeypatch):
    """They hold memory maps, of which a process may have so many."""
    program, compiled = Kept(spread), []
    want = program(PAIR, 2.5)
    load = kept._load
    monkeypatch.setattr(kept, "_load", lambda *each: compiled.append(1) or load(*each))
    equal(program(PAIR, 2.5), want)
    assert not compiled
    forget_programs(above=-1)
    equal(program(PAIR, 2.5), want)
    assert compiled


@pytest.mark.slow  # two processes that import JAX
def test_a_second_process_draws_the_same_without_compiling(tmp_path):
    program = """
import sys, jax, numpy as np, jaxdyn as jd
compiled = []
lowered = jax.stages.Lowered.compile
jax.stages.Lowered.compile = lambda *a, **k: compiled.append(1) or lowered(*a, **k)
trials = jd.run_trials(jd.ScalarLaws(), 40)
print(len(compiled), *(float(trials[name].sum()) for name in ("rho", "tau", "final_radius", "steps", "objective_end")))
"""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("JAX")}
    told = [
        subprocess.run([sys.executable, "-c", program], env=clean | {"JAXDYN_CACHE_DIR": str(tmp_path)}, text=True,
                       capture_output=True, check=True).stdout.split()
        for _ in range(2)
    ]  # fmt: skip
    assert int(told[0][0]) > 2
    assert int(told[1][0]) == 0
    assert told[0][1:] == told[1][1:]


def test_settings_of_jax_are_respected(monkeypatch):
    """JAX's own cache, the wish for none, and modes in which the function has to be run as it stands."""
    with monkeypatch.context() as patch:
        patch.setattr(kept.jax, "config", Settings())
        assert kept._applies()
    for name, value in (("compilation_cache_dir", "/somewhere"), ("enable_compilation_cache", False),
                        ("disable_jit", True), ("debug_nans", True)):  # fmt: skip
        with monkeypatch.context() as patch:
            patch.setattr(kept.jax, "config", Settings(**{f"jax_{name}": value}))
            assert not kept._applies()


class Settings:
    jax_enable_compilation_cache = True
    jax_compilation_cache_dir = jax_default_device = None
    jax_debug_nans = jax_debug_infs = jax_disable_jit = False

    def __init__(self, **other):
        vars(self).update(other)
