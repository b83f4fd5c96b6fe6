"""`python -m jaxdyn` is `jaxdyn`."""

from .cli import entry

entry()
