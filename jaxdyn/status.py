"""How a computation ended: integers with names, never an exception or a silent NaN."""

import enum


class Status(enum.IntEnum):
    """How one solve or one trial ended.

    `COMPLETED` reached the requested time or number of steps; `CONVERGED` met its stopping rule
    before that; `OUT_OF_STEPS` used up its step limit; `DIVERGED` left the finite numbers (the
    state kept is the last finite one where that is known).
    """

    COMPLETED = 0
    CONVERGED = 1
    OUT_OF_STEPS = 2
    DIVERGED = 3
