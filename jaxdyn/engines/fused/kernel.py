"""One kernel a step: lanes that take trials from a queue, step them until they end, and write them back.

The kernel's text, in LLVM's language, around the code of `step`, `done` and `record`. A small step is written out
inside the loop, its state in registers; a large one is a function on the kernel's memory (`tiles`).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from . import mathematics, tiles
from .expressions import Graph, TooLarge, Unsupported
from .module import Module, declared
from .places import loop
from .program import Parts, Program, awaited, flat, scalarised
from .scalarise import scalarise
from .vectors import Code, emit, size_of

_VISIT = 4096  # steps between two looks at the stop flag
_BLOCK = 16  # steps of a fixed-length run between two looks for numbers that are no longer finite


class Kernel(NamedTuple):
    """The text of a module with `run(job, work)`, the lanes it runs, and the bytes of memory a thread needs.

    `straight`: a step has no loops, so that it takes as long as its text.
    """

    text: str
    lanes: int
    work_bytes: int
    straight: bool

    @property
    def lines(self) -> int:
        return self.text.count("\n")


def build(program: Program, lanes: int | None, features: Any) -> Kernel:
    """The kernel of a program for a processor with these features."""
    numbers = len(program.state.elements) + len(program.params.elements)
    if numbers > _LARGEST:
        raise Unsupported(f"a trial of {numbers:,} numbers (more than {_LARGEST:,})")
    # A register holds twice as many numbers of single precision.
    fill = 1 if any(dtype == "float64" for dtype in program.state.elements) else 2
    straight = None
    try:
        graph = Graph(limit=4 * _STRAIGHT_IF_SMALL)
        parts = scalarised(program, graph)
        count, n_state = graph.size([*parts.new, *parts.judged]), len(program.state.elements)
        if count <= (_STRAIGHT_IF_SMALL if n_state <= _SMALL else _STRAIGHT) and n_state <= _IN_REGISTERS:
            narrow = fill * features.width
            wide = lanes or fill * features.small_lanes(n_state)
            straight = _Text(program, wide, features).small(graph, parts)
            if lanes is None and straight.lines * wide > _PROMPT_WIDE * narrow:
                straight = _Text(program, narrow, features).small(graph, parts)
            if straight.lines <= PROMPT:
                return straight
    except TooLarge:
        pass
    looped = _Text(program, lanes or fill * features.width, features).large()
    return looped if straight is None or looped.lines < straight.lines else straight


# Operations that are still written out inside the loop. Beyond this, loops over array elements were measured to be as
# fast and compile sooner; with few state elements (an integrator of a small system) writing out stays ahead.
_STRAIGHT, _STRAIGHT_IF_SMALL, _SMALL = 4000, 20_000, 32
PROMPT = 25_000  # lines of a kernel that are compiled in about two seconds
# Lines times registers a value: what several registers are for, hiding latency, long steps do by themselves, and LLVM's
# code generation takes as long as there are instructions (0.4 s for 1,000 lines of four registers with calls in them).
_PROMPT_WIDE = 8000
_IN_REGISTERS = 512  # elements of a state that go around the loop as values; more take LLVM for ever
_LARGEST = 4096  # numbers of a trial; beyond it the lanes' memory outgrows the caches, and libraries are better


class _Text:
    """The text around a step, in its two shapes, on the parts that are the same for every step (`Module`)."""

    def __init__(self, program: Program, lanes: int, features: Any):
        self.module = Module(program, lanes, features)

    # The two kinds of kernel.

    def small(self, graph: Graph, parts: Parts) -> Kernel:
        """Everything inside one loop, the state in registers."""
        code = self._begin_run()
        elements = self.module.program.state.elements
        places = self.module.program.state.places(self.module.lanes)
        slots = [code.name("c") for _ in elements]
        allocas = [
            f"  {slot} = alloca [{self.module.lanes * size_of(dtype)} x i8], align 64"
            for slot, dtype in zip(slots, elements, strict=True)
        ]
        code.lines[1:1] = allocas  # after the entry's label: LLVM turns them into registers
        params = {
            ("params", k): code.load(dtype, code.address("%params", place))
            for k, (dtype, place) in enumerate(
                zip(
                    self.module.program.params.elements,
                    self.module.program.params.places(self.module.lanes),
                    strict=True,
                )
            )
        }
        when = {("when", 0): code.load("float64", self.module.area(code, "when"))}
        for slot, dtype, place in zip(slots, elements, places, strict=True):
            code.store(dtype, code.load(dtype, code.address("%state", place)), slot)

        def body(outputs: list[int]) -> tuple[list[str], list[str]]:
            current = [code.load(dtype, slot) for slot, dtype in zip(slots, elements, strict=True)]
            known = {("state", k): value for k, value in enumerate(current)} | params | when
            return current, emit(code, graph, outputs, known.__getitem__)

        def to_memory() -> None:
            for slot, dtype, place in zip(slots, elements, places, strict=True):
                code.store(dtype, code.load(dtype, slot), code.address("%state", place))

        entries = "[ 0, %ready ]"
        # A loop may never end for numbers that are no longer finite: steps with one are looked at one by one.
        blocks = not parts.judged and not graph.has_loops(parts.new)
        if blocks:
            entries += self._unjudged_blocks(code, slots, places, elements, parts, body, to_memory)
        else:
            code.put("br label %inner")
        code.label("inner")
        at = len(code.lines)
        current, results = body([*parts.new, *parts.judged])
        new, judged = results[: len(elements)], results[len(elements) :]
        masks = {"finite": self._finite(code, new)}
        for name, exists in (("converged", parts.done), ("due", parts.due)):
            masks[name] = judged.pop(0) if exists else "zeroinitializer"
        ended = self._ended(code, masks)
        code.put("%n1 = add i64 %n, 1")
        full = code.let("icmp eq i64 %n1, %bound")
        for slot, dtype, value in zip(slots, elements, new, strict=True):
            code.store(dtype, value, slot)
        leaves = code.let(f"or i1 {ended}, {full}")
        code.lines.insert(at, f"  %n = phi i64 {entries}, [ %n1, %{code.label_now()} ]")
        code.put(f"br i1 {leaves}, label %leave, label %inner")
        self._leave_small(code, masks, current, new)
        self._end_run(code, "[ %n1, %leave ]" + (", [ %m2, %whole ]" if blocks else ""))
        return self._module(straight=True)

    def _leave_small(self, code: Code, masks: dict[str, str], current: list[str], new: list[str]) -> None:
        """Masks and states into memory: the new state, or the old one where the new is not finite."""
        code.label("leave")
        for name, mask in masks.items():
            code.store("bool", mask, self.module.area(code, name))
        places = self.module.program.state.places(self.module.lanes)
        for k, (dtype, place) in enumerate(zip(self.module.program.state.elements, places, strict=True)):
            if self.module.program.record:
                code.store(dtype, current[k], code.address(self.module.area(code, "previous"), place))
            kept = code.let(
                f"select <{self.module.lanes} x i1> {masks['finite']}, {code.vector(dtype)} {new[k]}, "
                f"{code.vector(dtype)} {current[k]}"
            )
            code.store(dtype, kept, code.address("%state", place))
        code.put("br label %leaving")

    def _unjudged_blocks(
        self, code: Any, slots: Any, places: Any, elements: Any, parts: Any, body: Any, to_memory: Any
    ) -> str:
        """Runs of a fixed length: blocks of steps without a look; one that left the finite numbers is done again."""
        code.put(f"%long = icmp sge i64 %bound, {_BLOCK}")
        code.put("br i1 %long, label %block, label %inner")
        code.label("block")
        code.put("%m = phi i64 [ 0, %ready ], [ %m2, %again ]")
        to_memory()
        code.put("br label %quick")
        code.label("quick")
        at = len(code.lines)
        _, new = body(parts.new)
        for slot, dtype, value in zip(slots, elements, new, strict=True):
            code.store(dtype, value, slot)
        code.lines.insert(at, f"  %j = phi i64 [ 0, %block ], [ %j1, %{code.label_now()} ]")
        code.put("%j1 = add i64 %j, 1")
        code.put(f"%jend = icmp eq i64 %j1, {_BLOCK}")
        code.put("br i1 %jend, label %look, label %quick")
        code.label("look")
        finite = self._finite(code, new)
        bad = code.any(code.let(f"and <{self.module.lanes} x i1> %active, {self._not(code, finite)}"))
        code.put(f"br i1 {bad}, label %redo, label %good")
        code.label("redo")
        for slot, dtype, place in zip(slots, elements, places, strict=True):
            code.store(dtype, code.load(dtype, code.address("%state", place)), slot)
        code.put("br label %inner")
        code.label("good")
        code.put(f"%m2 = add i64 %m, {_BLOCK}")
        code.put(f"%m3 = add i64 %m, {2 * _BLOCK}")
        code.put(f"br i1 {code.let('icmp sle i64 %m3, %bound')}, label %again, label %tail")
        code.label("again")
        code.put("br label %block")
        code.label("tail")
        code.put(f"br i1 {code.let('icmp eq i64 %m2, %bound')}, label %whole, label %inner")
        code.label("whole")
        to_memory()
        code.store("bool", "splat (i1 true)", self.module.area(code, "finite"))
        for name in ("converged", "due"):
            code.store("bool", "zeroinitializer", self.module.area(code, name))
        code.put("br label %leaving")
        return ", [ %m, %redo ], [ %m2, %tail ]"

    def large(self) -> Kernel:
        """The step as a function from memory to memory; two copies of the state take turns."""
        self.module.temporaries = self._step_function()
        self._judge_function()
        code = self._begin_run()
        code.put(f"%other = getelementptr i8, ptr %work, i64 {self.module.areas['other']}")
        code.put(f"%free = getelementptr i8, ptr %work, i64 {self.module.work_end}")
        code.put("br label %inner")
        code.label("inner")
        code.put("%n = phi i64 [ 0, %ready ], [ %n1, %inner ]")
        code.put("%now = phi ptr [ %state, %ready ], [ %then, %inner ]")
        code.put("%then = phi ptr [ %other, %ready ], [ %now, %inner ]")
        code.put("call void @step(ptr %now, ptr %params, ptr %free, ptr %then, ptr %job, ptr %work)")
        code.put("%ended = call i1 @judge(ptr %now, ptr %then, ptr %params, ptr %job, ptr %work)")
        code.put("%n1 = add i64 %n, 1")
        full = code.let("icmp eq i64 %n1, %bound")
        code.put(f"br i1 {code.let(f'or i1 %ended, {full}')}, label %leave, label %inner")
        code.label("leave")
        finite = code.load("bool", self.module.area(code, "finite"))
        if self.module.program.record:
            self._copy_state(code, "%now", "%now", finite, self.module.area(code, "previous"), "p")
        self._copy_state(code, "%then", "%now", finite, "%state", "s")
        code.put("br label %leaving")
        label = code.label_now()
        self._end_run(code, f"[ %n1, %{label} ]")
        return self._module(straight=False)

    def _copy_state(self, code: Code, yes: str, no: str, mask: str, to: str, stem: str) -> None:
        """to = where(mask, yes, no), leaf by leaf; `to` may be either of them."""
        for number, (leaf, start) in enumerate(
            zip(self.module.program.state.leaves, self.module.program.state.offsets(self.module.lanes), strict=False)
        ):
            if leaf.size == 0:
                continue
            with loop(code, leaf.size, f"{stem}{number}") as k:
                size = self.module.lanes * size_of(leaf.dtype)
                at = code.let(f"add i64 {start}, {code.let(f'mul i64 {k}, {size}')}")
                values = [code.load(leaf.dtype, code.address(base, at)) for base in (yes, no)]
                kind = code.vector(leaf.dtype)
                kept = code.let(f"select <{self.module.lanes} x i1> {mask}, {kind} {values[0]}, {kind} {values[1]}")
                code.store(leaf.dtype, kept, code.address(to, at))

    def _step_function(self) -> int:
        code = self.module.code()
        code.label("entry")
        self.module.guards(code)
        size = tiles.emit_step(code, self.module.program, self.module.features)
        code.put("ret void")
        self.module.finish(code, "define internal void @step(ptr noalias %now, ptr noalias %params, ptr noalias %free, "
                          "ptr noalias %then, ptr %job, ptr %work) #1")  # fmt: skip
        return size

    def _judge_function(self) -> None:
        """Sets the masks after a step from `now` to `then`; whether any active lane ended or is due."""
        code = self.module.code()
        code.label("entry")
        self.module.guards(code)
        graph = Graph()
        known = self.module.memory_inputs(code, {"state": "%now", "new": "%then", "params": "%params"})
        inputs = self.module.three_inputs(graph)
        masks: dict[str, str] = dict.fromkeys(("finite", "converged", "due"), "zeroinitializer")
        if self.module.program.done:
            places = flat(scalarise(self.module.program.done, graph, inputs))
            (masks["converged"],) = emit(code, graph, places, known)
        if self.module.program.record:
            places = flat(
                scalarise(self.module.program.record, graph, [*inputs, awaited(self.module.program, graph)])[:1]
            )
            (masks["due"],) = emit(code, graph, places, known)
        masks["finite"] = self._finite(
            code, [known(("new", k)) for k in range(len(self.module.program.state.elements))]
        )
        for name, mask in masks.items():
            code.store("bool", mask, self.module.area(code, name))
        code.put(f"ret i1 {self._ended(code, masks)}")
        self.module.finish(code, "define internal i1 @judge(ptr %now, ptr %then, ptr %params, ptr %job, ptr %work) #1")

    # What both share.

    def _begin_run(self) -> Code:
        """Fill the lanes; at `ready` at least one is active and %bound steps are free of the step limit."""
        code, lanes = self.module.code(), self.module.lanes
        code.label("entry")
        for name in ("state", "params"):
            code.put(f"%{name} = getelementptr i8, ptr %work, i64 {self.module.areas[name]}")
        code.put("br label %filling")
        code.label("filling")
        code.put("%lane0 = phi i64 [ 0, %entry ], [ %lane1, %filling ]")
        code.put("call void @take(ptr %job, ptr %work, i64 %lane0)")
        code.put("%lane1 = add i64 %lane0, 1")
        code.put(f"br i1 {code.let(f'icmp eq i64 %lane1, {lanes}')}, label %outer, label %filling")
        code.label("outer")
        self.module.guards(code)
        stop = code.let("load volatile i8, ptr %stop")
        go_on = code.let(f"and i1 {code.let(f'icmp eq i8 {stop}, 0')}, {code.any('%active')}")
        code.put(f"br i1 {go_on}, label %ready, label %over")
        code.label("ready")
        ages = code.let(f"load <{lanes} x i64>, ptr {self.module.area(code, 'age')}, align 64")
        limit = code.let(f"insertelement <{lanes} x i64> poison, i64 {self.module.job(code, 'max_steps')}, i64 0")
        limit = code.let(
            f"shufflevector <{lanes} x i64> {limit}, <{lanes} x i64> poison, <{lanes} x i32> zeroinitializer"
        )
        left = code.let(f"sub <{lanes} x i64> {limit}, {ages}")
        left = code.let(f"select <{lanes} x i1> %active, <{lanes} x i64> {left}, <{lanes} x i64> splat (i64 {_VISIT})")
        least = code.let(f"call i64 @llvm.vector.reduce.smin.v{lanes}i64(<{lanes} x i64> {left})")
        code.put(f"%bound = call i64 @llvm.smin.i64(i64 {least}, i64 {_VISIT})")
        return code

    def _end_run(self, code: Code, taken: str) -> None:
        code.label("leaving")
        code.put(f"%taken = phi i64 {taken}")
        if self.module.program.record:
            code.put("call void @save(ptr %job, ptr %work)")
        code.put("br label %retiring")
        code.label("retiring")
        code.put("%lane2 = phi i64 [ 0, %leaving ], [ %lane3, %retiring ]")
        code.put("call void @retire(ptr %job, ptr %work, i64 %lane2, i64 %taken)")
        code.put("%lane3 = add i64 %lane2, 1")
        code.put(f"br i1 {code.let(f'icmp eq i64 %lane3, {self.module.lanes}')}, label %outer, label %retiring")
        code.label("over")
        code.put("ret void")
        self.module.finish(code, "define void @run(ptr %job, ptr %work) #0")

    def _not(self, code: Code, mask: str) -> str:
        return code.let(f"xor <{self.module.lanes} x i1> {mask}, splat (i1 true)")

    def _ended(self, code: Code, masks: dict[str, Any]) -> str:
        ended = self._not(code, masks["finite"])
        for name in ("converged", "due"):
            if masks[name] != "zeroinitializer":
                ended = code.let(f"or <{self.module.lanes} x i1> {ended}, {masks[name]}")
        return code.any(code.let(f"and <{self.module.lanes} x i1> {ended}, %active"))

    def _finite(self, code: Code, values: Sequence[str]) -> str:
        """The lanes whose floating elements are all finite: 0·x is 0 for those alone."""
        mask = None
        for dtype in ("float64", "float32"):
            total = None
            kind, suffix = code.vector(dtype), f"v{self.module.lanes}f{dtype[5:]}"
            zero = code.splat(0.0, dtype)
            for value, own in zip(values, self.module.program.state.elements, strict=True):
                if own == dtype:
                    total = (
                        code.let(f"fmul {kind} {value}, {zero}") if total is None else
                        code.let(f"call {kind} @llvm.fma.{suffix}({kind} {value}, {kind} {zero}, {kind} {total})")
                    )  # fmt: skip
            if total is not None:
                here = code.let(f"fcmp ord {kind} {total}, {zero}")
                mask = here if mask is None else code.let(f"and <{self.module.lanes} x i1> {mask}, {here}")
        return mask or "splat (i1 true)"

    def _module(self, straight: bool) -> Kernel:
        self.module.take_function()
        self.module.retire_function()
        if self.module.program.record:
            self.module.save_functions()
        tables = [f"{name} = {text}" for text, name in self.module.tables.items()]
        helpers = mathematics.definitions(self.module.helpers, self.module.lanes, "\n".join(self.module.functions))
        text = [*tables, *helpers, *self.module.functions]
        text += [
            'attributes #0 = { nounwind }',
            'attributes #1 = { nounwind noinline }',
            'attributes #2 = { nounwind noinline }',
        ]  # fmt: skip
        work_bytes = self.module.work_end + self.module.temporaries + 64
        whole = "\n\n".join(declared(text))
        return Kernel(whole, self.module.lanes, work_bytes, straight and "\nwhile" not in whole)
