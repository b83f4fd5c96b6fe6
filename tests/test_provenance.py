"""Which code a kept result rests on: all that is imported to make it, and nothing else."""

import subprocess
import sys

from jaxdyn import provenance
from jaxdyn.papers.tables import running

TRAIN = """
import sys
import jax
from jaxdyn.data import Augmentation, load_dataset
from jaxdyn.networks.recipe import Knobs, Recipe
from jaxdyn.networks.train import train
recipe = Recipe(encoder="linear", projector="linear", embedding=4, batch=8, steps=2, augmentation=Augmentation())
train(load_dataset("digits"), recipe, Knobs(), seeds=1)
print(*(name for name in sys.modules if name.startswith("jaxdyn.")))
"""


def test_a_trainings_sources_are_what_it_imports():
    done = subprocess.run([sys.executable, "-c", TRAIN], capture_output=True, text=True, timeout=300, check=True)
    used = {name for name in done.stdout.split() if not getattr(sys.modules.get(name), "__path__", None)}
    reached = set(provenance._reached(("networks.train", "data")))
    assert {"jaxdyn.networks.rules", "jaxdyn.systems.direct", "jaxdyn.data.bundled"} <= used
    # What is imported is a source; a reader or a batch statistic that this run did not need may be one besides.
    packages = {"jaxdyn.papers", "jaxdyn.systems", "jaxdyn.networks", "jaxdyn.data", "jaxdyn.provenance"}
    assert used - reached <= packages, used - reached
    assert not {name for name in reached if name.startswith(("jaxdyn.analysis", "jaxdyn.equilibria", "jaxdyn.papers"))}


def test_a_changed_source_is_another_digest(monkeypatch):
    before = running._sources()
    assert before == provenance.sources_of("networks.train", "data")
    provenance.sources_of.cache_clear()
    real = provenance._reached
    monkeypatch.setattr(provenance, "_reached", lambda modules: real(modules) | {"jaxdyn.linear": b"one = 1"})
    assert running._sources() != before
    provenance.sources_of.cache_clear()


def test_what_is_said_is_no_source():
    plain = b"def f(x):\n    return x + 1\n"
    told = b'"""About it."""\n\n\ndef f(x):\n    """And this."""\n    # more\n    return x + 1\n'
    assert provenance._meaning(plain) == provenance._meaning(told)
    assert provenance._meaning(plain) != provenance._meaning(plain.replace(b"1", b"2"))
    assert provenance._meaning(b'"""Only words."""\n') == provenance._meaning(b"pass\n")
