"""`python -m jaxdyn` is `jaxdyn`."""

from jaxdyn_command import entry

entry()
