"""A kernel's text made machine code by LLVM (llvmlite), kept in the process and on disk."""

import ctypes
import functools
import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import llvmlite
import llvmlite.binding as llvm

from ...caching import cache_folder, read_whole, write_whole
from .kernel import Kernel


class Features(NamedTuple):
    """The processor: its name, its features, and how many double-precision numbers a register holds."""

    name: str
    flags: str
    width: int
    registers: int

    def small_lanes(self, n_state: int) -> int:
        """Lanes of a kernel whose state is in registers: several registers' worth hide the latency of small steps."""
        return self.width * (4 if n_state <= 3 else 2 if n_state <= 8 else 1)


@functools.cache
def features() -> Features:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    name, flags = llvm.get_host_cpu_name(), llvm.get_host_cpu_features()
    wide = bool(flags.get("avx512f") and flags.get("avx512dq") and flags.get("avx512vl"))
    arm = llvm.get_process_triple().startswith(("aarch64", "arm64"))
    width = 8 if wide else 4 if flags.get("avx") else 2
    return Features(name, flags.flatten(), width, 32 if wide or arm else 16)


class Compiled(NamedTuple):
    """A kernel that can be called: `run(job, work)`, addresses both. `engine` keeps its code alive."""

    run: Any
    lanes: int
    work_bytes: int
    lines: int | None  # that a step takes, where it has no loops
    engine: Any


def compile_kernel(kernel: Kernel, *, cache: Path | None = None) -> Compiled:
    """Machine code of a kernel, from the disk's cache where it has it."""
    machine = _target_machine()
    key = hashlib.sha256("\n".join([llvmlite.__version__, str(llvm.llvm_version_info), features().name,
                                    features().flags, kernel.text]).encode()).hexdigest()  # fmt: skip
    module = llvm.parse_assembly(f'source_filename = "{key}"\n{kernel.text}')
    module.verify()
    module.triple = llvm.get_process_triple()
    module.data_layout = str(machine.target_data)
    cache = cache_folder("kernels") if cache is None else cache
    path = cache / f"{key}.o" if cache else None
    stored = read_whole(path)  # LLVM ends the process over a damaged file
    if stored is None:
        _optimise(module, machine)
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.set_object_cache(lambda _, code: write_whole(path, code, "*.o"), lambda _: stored)
    engine.finalize_object()
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(engine.get_function_address("run"))
    return Compiled(function, kernel.lanes, kernel.work_bytes, kernel.lines if kernel.straight else None, engine)


def _target_machine() -> Any:
    own = features()
    target = llvm.Target.from_triple(llvm.get_process_triple())
    return target.create_target_machine(cpu=own.name, features=own.flags, opt=2, codemodel="jitdefault", jit=True)


def _optimise(module: Any, machine: Any) -> None:
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    options.loop_vectorization = options.slp_vectorization = False
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
