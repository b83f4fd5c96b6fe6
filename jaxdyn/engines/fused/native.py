"""A kernel's text made machine code by LLVM (llvmlite), kept in the process and on disk."""

import ctypes
import functools
import hashlib
import os
from pathlib import Path
from typing import Any, NamedTuple

import llvmlite
import llvmlite.binding as llvm

from ...caching import cache_folder, forget_oldest, is_private, made_private
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
    stored = _read(path)
    if stored is None:
        _optimise(module, machine)
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.set_object_cache(lambda _, code: _write(path, code), lambda _: stored)
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


_DIGEST = 32  # bytes at the start of a stored file


def _digest(path: Path, code: bytes) -> bytes:
    """Of the code and of whose it is: a file under another's name is damaged like any other."""
    return hashlib.sha256(path.name.encode() + b"\0" + code).digest()


def _read(path: Path | None) -> bytes | None:
    """Stored machine code, if it is whole and ours: LLVM ends the process over a damaged file."""
    try:
        if path is None or not (is_private(path.parent) and is_private(path)):
            return None
        content = path.read_bytes()
    except OSError:
        return None
    digest, code = content[:_DIGEST], content[_DIGEST:]
    return code if code and _digest(path, code) == digest else None


def _write(path: Path | None, code: bytes) -> None:
    if path is None:
        return
    try:
        if not made_private(path.parent):
            return
        partial = path.with_suffix(f".{os.getpid()}.partial")
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(_digest(path, code) + code)
        partial.replace(path)
        forget_oldest(path.parent, "*.o")
    except OSError:
        pass  # a cache that cannot be written is no cache
