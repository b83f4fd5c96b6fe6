"""jaxdyn: the learning dynamics of non-contrastive self-supervised learning, simulated and analysed.

Public names are imported on first use, so that `import jaxdyn` costs nothing; `__init__.pyi` lists them.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
