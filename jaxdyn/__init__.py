"""jaxdyn: the learning dynamics of non-contrastive self-supervised learning, simulated and analysed in JAX.

Public names are imported on first use, so that `import jaxdyn` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .analysis.basins import basin_fractions as basin_fractions
    from .analysis.continuation import branches as branches
    from .analysis.equilibria.listing import Equilibria as Equilibria
    from .analysis.equilibria.listing import census as census
    from .analysis.equilibria.listing import equilibria as equilibria
    from .analysis.integrability import gradient_defect as gradient_defect
    from .analysis.stability import Verdict as Verdict
    from .analysis.stability import stability as stability
    from .analysis.threshold import collapse_threshold as collapse_threshold
    from .ensemble.laws import Law as Law
    from .ensemble.protocol import Protocol as Protocol
    from .ensemble.solve import Ensemble as Ensemble
    from .ensemble.solve import run_ensemble as run_ensemble
    from .ensemble.trials import Outcome as Outcome
    from .ensemble.trials import run_trials as run_trials
    from .moments import Moments as Moments
    from .networks.recipe import Knobs as Knobs
    from .networks.recipe import Recipe as Recipe
    from .networks.run import train as train
    from .solve.descent import Descent as Descent
    from .solve.descent import descend as descend
    from .solve.flow import Trajectory as Trajectory
    from .solve.flow import flow as flow
    from .status import Status as Status
    from .systems.siamese import MovingAverage as MovingAverage
    from .systems.siamese import Objective as Objective
    from .systems.siamese import StopGradient as StopGradient

_HOME = {
    "Descent": "solve.descent",
    "Ensemble": "ensemble.solve",
    "Equilibria": "analysis.equilibria.listing",
    "Knobs": "networks.recipe",
    "Law": "ensemble.laws",
    "Moments": "moments",
    "MovingAverage": "systems.siamese",
    "Objective": "systems.siamese",
    "Outcome": "ensemble.trials",
    "Protocol": "ensemble.protocol",
    "Recipe": "networks.recipe",
    "Status": "status",
    "StopGradient": "systems.siamese",
    "Trajectory": "solve.flow",
    "Verdict": "analysis.stability",
    "basin_fractions": "analysis.basins",
    "branches": "analysis.continuation",
    "census": "analysis.equilibria.listing",
    "collapse_threshold": "analysis.threshold",
    "descend": "solve.descent",
    "equilibria": "analysis.equilibria.listing",
    "flow": "solve.flow",
    "gradient_defect": "analysis.integrability",
    "run_ensemble": "ensemble.solve",
    "run_trials": "ensemble.trials",
    "stability": "analysis.stability",
    "train": "networks.run",
}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module 'jaxdyn' has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
