"""The fused engine: a compiler from a trial's JAX step to one kernel that runs whole trials.

`scalarise` writes a traced step out as scalar `expressions`; `vectors` and `mathematics` turn them into LLVM code
over lanes, `kernel` puts the loop and the queue around it, `native` makes it machine code; `lanes` is the same
lowering as a JAX program with the trial axis last, for other devices.
"""
