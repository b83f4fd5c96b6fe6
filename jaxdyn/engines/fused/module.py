"""The part of a kernel's text that is the same for every step: lanes take trials from a queue and write them back."""

import re
from typing import Any

import numpy as np

from ...status import Status
from .expressions import Graph
from .places import loop
from .program import Program, awaited, flat, inputs_of
from .scalarise import scalarise
from .vectors import Code, emit, scalar_type, size_of

# The job: what a call is given, eight bytes each. After these, the address and stride of every leaf of the states,
# the parameters and the saved values.
JOB = (
    "steps", "status", "order", "next", "total", "max_steps", "stop", "finished", "times", "n_times", "n_saved",
)  # fmt: skip
_POINTERS = {name for name in JOB if name not in ("total", "max_steps", "n_times")}


class Module:
    """Memory, and the functions that move trials between it and the batch."""

    def __init__(self, program: Program, lanes: int, features: Any):
        self.program, self.lanes, self.features = program, lanes, features
        self.functions: list[str] = []
        self.helpers: set[tuple[str, str]] = set()
        self.tables: dict[str, str] = {}
        self.temporaries = 0
        state, params, saved = (layout.offsets(lanes)[-1] for layout in (program.state, program.params, program.saved))
        self.areas, end = {}, 0
        for name, size in {
            "index": 8 * lanes, "age": 8 * lanes, "when": 8 * lanes, "slot": 8 * lanes,
            "active": lanes, "converged": lanes, "finite": lanes, "due": lanes,
            "state": state, "params": params, "previous": state, "other": state, "values": saved,
        }.items():  # fmt: skip
            self.areas[name] = end
            end += -(-size // 64) * 64 + 64
        self.work_end = end

    def code(self) -> Code:
        return Code(self.lanes, helpers=self.helpers, tables=self.tables)

    def finish(self, code: Code, head: str) -> None:
        self.functions.append("\n".join([head + " {", *code.lines, "}"]))

    def area(self, code: Code, name: str) -> str:
        return code.address("%work", self.areas[name])

    def job(self, code: Code, name: str) -> str:
        kind = "ptr" if name in _POINTERS else "i64"
        return code.let(f"load {kind}, ptr {code.address('%job', JOB.index(name), 'i64')}")

    def three_inputs(self, graph: Graph) -> list[np.ndarray]:
        """What `done` takes: the state before a step, the one after it, the parameters."""
        layouts = {"state": self.program.state, "new": self.program.state, "params": self.program.params}
        return [array for kind, layout in layouts.items() for array in inputs_of(graph, kind, layout)]

    def memory_inputs(self, code: Code, bases: dict[str, str]) -> Any:
        """Loads an input where it is first used."""
        layouts = {"params": self.program.params}
        known: dict[Any, str] = {}

        def value(name: tuple[str, int]) -> str:
            if name not in known:
                kind, k = name
                if kind == "when":
                    known[name] = code.load("float64", self.area(code, "when"))
                else:
                    layout = layouts.get(kind, self.program.state)
                    at = code.address(bases[kind], layout.places(self.lanes)[k])
                    known[name] = code.load(layout.elements[k], at)
            return known[name]

        return value

    def guards(self, code: Code) -> None:
        """What loops inside a step look at: the lanes whose trials are running, and where a stop would be said."""
        code.put(f"%active = icmp ne <{self.lanes} x i8> {self.bytes_of(code, 'active')}, zeroinitializer")
        code.put(f"%stop = getelementptr i8, ptr {self.job(code, 'stop')}, i64 0")

    def bytes_of(self, code: Code, name: str) -> str:
        return code.let(f"load <{self.lanes} x i8>, ptr {self.area(code, name)}, align 1")

    def _lane_copy(self, code: Code, what: str, row_number: str, base: str, to_row: bool) -> None:
        """One lane's elements between the kernel's memory and row `row_number` of the batch's arrays."""
        layouts = {"state": self.program.state, "params": self.program.params, "saved": self.program.saved}
        layout, first = layouts[what], len(JOB)
        for name, other in layouts.items():
            if name == what:
                break
            first += 2 * len(other.leaves)
        for number, (leaf, start) in enumerate(zip(layout.leaves, layout.offsets(self.lanes), strict=False)):
            if leaf.size == 0:
                continue
            size = size_of(leaf.dtype)
            kind = "i8" if leaf.dtype == "bool" else scalar_type(leaf.dtype)
            pointer = code.let(f"load ptr, ptr {code.address('%job', first + 2 * number, 'i64')}")
            stride = code.let(f"load i64, ptr {code.address('%job', first + 2 * number + 1, 'i64')}")
            row = code.address(pointer, code.let(f"mul i64 {row_number}, {stride}"))
            with loop(code, leaf.size, f"{what}{number}") as k:
                element = code.let(f"add i64 {code.let(f'mul i64 {k}, {self.lanes}')}, %lane")
                inside = code.address(code.address(base, start), element, kind)
                outside = code.address(row, k, kind)
                source, target = (inside, outside) if to_row else (outside, inside)
                value = code.let(f"load {kind}, ptr {source}, align {size}")
                code.put(f"store {kind} {value}, ptr {target}, align {size}")

    def _lane_field(self, code: Code, name: str, kind: str) -> str:
        return code.address(self.area(code, name), "%lane", kind)

    def take_function(self) -> None:
        """The next trial of the queue into a lane, or none."""
        code = self.code()
        code.label("entry")
        code.put(f"%i = atomicrmw add ptr {self.job(code, 'next')}, i64 1 monotonic")
        more = code.let(f"icmp slt i64 %i, {self.job(code, 'total')}")
        active = code.let(f"zext i1 {more} to i8")
        code.put(f"store i8 {active}, ptr {self._lane_field(code, 'active', 'i8')}, align 1")
        code.put(f"br i1 {more}, label %some, label %none")
        code.label("some")
        trial = code.let(f"load i64, ptr {code.address(self.job(code, 'order'), '%i', 'i64')}")
        code.put(f"store i64 {trial}, ptr {self._lane_field(code, 'index', 'i64')}")
        code.put(f"store i64 0, ptr {self._lane_field(code, 'age', 'i64')}")
        for name in ("state", "params"):
            self._lane_copy(code, name, trial, self.area(code, name), False)
        if self.program.record:
            code.put(f"store i64 0, ptr {self._lane_field(code, 'slot', 'i64')}")
            first = code.let(f"load double, ptr {self.job(code, 'times')}")
            code.put(f"store double {first}, ptr {self._lane_field(code, 'when', 'double')}")
        code.put("ret void")
        code.label("none")
        code.put("ret void")
        self.finish(code, "define internal void @take(ptr %job, ptr %work, i64 %lane) #2")

    def retire_function(self) -> None:
        """After a visit of `taken` steps: write back a trial that ended and take the next."""
        code = self.code()
        code.label("entry")
        active, finite, converged = (
            code.let("icmp ne i8 " + code.let("load i8, ptr " + self._lane_field(code, name, "i8")) + ", 0")
            for name in ("active", "finite", "converged")
        )
        code.put(f"br i1 {active}, label %one, label %none")
        code.label("one")
        field = self._lane_field(code, "age", "i64")
        age = code.let(f"add i64 {code.let(f'load i64, ptr {field}')}, %taken")
        lost = code.let(f"zext i1 {code.let(f'xor i1 {finite}, true')} to i64")
        age = code.let(f"sub i64 {age}, {lost}")
        code.put(f"store i64 {age}, ptr {field}")
        spent = code.let(f"icmp sge i64 {age}, {self.job(code, 'max_steps')}")
        status = code.let(f"select i1 {spent}, i8 {int(Status.OUT_OF_STEPS)}, i8 -1")
        status = code.let(f"select i1 {converged}, i8 {int(Status.CONVERGED)}, i8 {status}")
        status = code.let(f"select i1 {finite}, i8 {status}, i8 {int(Status.DIVERGED)}")
        code.put(f"br i1 {code.let(f'icmp eq i8 {status}, -1')}, label %none, label %ended")
        code.label("ended")
        trial = code.let(f"load i64, ptr {self._lane_field(code, 'index', 'i64')}")
        self._lane_copy(code, "state", trial, self.area(code, "state"), True)
        code.put(f"store i64 {age}, ptr {code.address(self.job(code, 'steps'), trial, 'i64')}")
        code.put(f"store i8 {status}, ptr {code.address(self.job(code, 'status'), trial)}")
        if self.program.record:
            slot = code.let(f"load i64, ptr {self._lane_field(code, 'slot', 'i64')}")
            code.put(f"store i64 {slot}, ptr {code.address(self.job(code, 'n_saved'), trial, 'i64')}")
        code.put(f"%f = atomicrmw add ptr {self.job(code, 'finished')}, i64 1 monotonic")
        code.put("call void @take(ptr %job, ptr %work, i64 %lane)")
        code.put("ret void")
        code.label("none")
        code.put("ret void")
        self.finish(code, "define internal void @retire(ptr %job, ptr %work, i64 %lane, i64 %taken) #2")

    def save_functions(self) -> None:
        """`record` for all lanes, then a lane's values into its trial's next row, until no lane is due."""
        code = self.code()
        code.label("entry")
        self.guards(code)
        graph = Graph()
        bases = {"state": "previous", "new": "state", "params": "params"}
        known = self.memory_inputs(code, {kind: self.area(code, area) for kind, area in bases.items()})
        inputs = [*self.three_inputs(graph), awaited(self.program, graph)]
        places = flat(scalarise(self.program.record, graph, inputs))
        due, *values = emit(code, graph, places, known)
        for value, dtype, place in zip(
            values, self.program.saved.elements, self.program.saved.places(self.lanes), strict=True
        ):
            code.store(dtype, value, code.address(self.area(code, "values"), place))
        finite = code.load("bool", self.area(code, "finite"))
        due = code.let(f"and <{self.lanes} x i1> {due}, %active")
        # After the last time `when` is infinite: nothing is due, whatever `record` says.
        awaited_times = code.load("float64", self.area(code, "when"))
        more = code.let(f"fcmp olt {code.vector('float64')} {awaited_times}, {code.splat(float('inf'), 'float64')}")
        due = code.let(f"and <{self.lanes} x i1> {due}, {more}")
        due = code.let(f"and <{self.lanes} x i1> {due}, {finite}")
        code.store("bool", due, self.area(code, "due"))
        code.put(f"ret i1 {code.any(due)}")
        self.finish(code, "define internal i1 @look(ptr %job, ptr %work) #1")

        code = self.code()
        code.label("entry")
        code.put("br label %looking")
        code.label("looking")
        code.put("%some = call i1 @look(ptr %job, ptr %work)")
        code.put("br i1 %some, label %lanes, label %over")
        code.label("lanes")
        code.put("%lane = phi i64 [ 0, %looking ], [ %next, %skip ]")
        due = code.let(f"load i8, ptr {self._lane_field(code, 'due', 'i8')}")
        code.put(f"br i1 {code.let(f'icmp ne i8 {due}, 0')}, label %keep, label %skip")
        code.label("keep")
        trial = code.let(f"load i64, ptr {self._lane_field(code, 'index', 'i64')}")
        slot = code.let(f"load i64, ptr {self._lane_field(code, 'slot', 'i64')}")
        n_times = self.job(code, "n_times")
        place = code.let(f"add i64 {code.let(f'mul i64 {trial}, {n_times}')}, {slot}")
        self._lane_copy(code, "saved", place, self.area(code, "values"), True)
        code.put(f"%more = add i64 {slot}, 1")
        code.put(f"store i64 %more, ptr {self._lane_field(code, 'slot', 'i64')}")
        # `times` ends with an infinity that is never due.
        when = code.let(f"load double, ptr {code.address(self.job(code, 'times'), '%more', 'double')}")
        code.put(f"store double {when}, ptr {self._lane_field(code, 'when', 'double')}")
        code.put("br label %skip")
        code.label("skip")
        code.put("%next = add i64 %lane, 1")
        code.put(f"br i1 {code.let(f'icmp eq i64 %next, {self.lanes}')}, label %looking, label %lanes")
        code.label("over")
        code.put("ret void")
        self.finish(code, "define internal void @save(ptr %job, ptr %work) #2")


_ARGUMENTS = {"fma": 3, "smin": 2}  # of intrinsics; the others take one
_CALL = re.compile(r"call (<\d+ x \w+>|\w+) (@llvm\.([a-z]+)[\w.]*)\((<\d+ x \w+>|\w+) ")


def declared(functions: list[str]) -> list[str]:
    """The functions, and a declaration of every LLVM intrinsic they call."""
    declarations = {
        name: f"declare {result} {name}({', '.join([argument] * _ARGUMENTS.get(stem, 1))})"
        for function in functions
        for result, name, stem, argument in _CALL.findall(function)
    }
    return [*declarations.values(), *functions]
