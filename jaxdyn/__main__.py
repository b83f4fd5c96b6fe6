"""`python -m jaxdyn` is `jaxdyn`."""

import sys

from .cli import main

sys.exit(main())
