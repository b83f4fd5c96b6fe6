"""Large steps as loops over array elements: every element is a vector over the lanes, in the kernel's memory.

Where a step is too long to be written out, its arrays stay arrays: moving data about only changes how an element is
found, elementwise operations are fused into the loop that needs them, and matrix products are computed by tiles whose
sums stay in registers. What has no rule here is written out element by element like a small step.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jax.extend import core as jex

from . import mathematics
from .elementwise import ELEMENTWISE, elementwise, tree
from .expressions import Graph, TooLarge, Unsupported
from .pairs import is_pair
from .places import Both, Constant, Index, Lazy, Memory, Value, Workspace, loop, row_major
from .products import Products
from .scalarise import apply_rule, inner_jaxpr, needed
from .translations import RULES, constant_places, literal, type_of
from .vectors import Code

_DEPTH = 64  # terms of a sum that are written out
_LONGEST = 60_000  # lines of code
_FEW = 8  # passes of a loop that are written out


def emit_step(code: Code, program: Any, features: Any) -> int:
    """The step from %now to %then with %params; returns the bytes of %free it needs."""
    return _Emitter(code, features).step(program)


class _Emitter:
    """The step, equation by equation: a method named after a primitive is its rule."""

    def __init__(self, code: Code, features: Any):
        self.code, self.space = code, Workspace(code)
        self.products = Products(code, self.space, (4, 4) if features.registers >= 32 else (2, 4))

    def step(self, program: Any) -> int:
        inputs = [*self._leaves("%now", program.state), *self._leaves("%params", program.params)]
        outputs = self.evaluate(program.step, inputs)
        for value, place in zip(outputs, self._leaves("%then", program.state), strict=True):
            self.space.write(value, place)
        return self.space.used

    def _leaves(self, base: str, layout: Any) -> list[Value]:
        return [
            Memory(leaf.shape, leaf.dtype, base, start, row_major(leaf.shape))
            for leaf, start in zip(layout.leaves, layout.offsets(self.code.lanes), strict=False)
        ]

    # Equations.

    def evaluate(self, closed: Any, inputs: Sequence[Value]) -> list[Value]:
        jaxpr = closed.jaxpr
        known: dict[Any, Value] = {
            variable: self.space.constant(value) for variable, value in zip(jaxpr.constvars, closed.consts, strict=True)
        }
        known |= dict(zip(jaxpr.invars, inputs, strict=True))
        equations, uses = needed(jaxpr), {}
        for atom in itertools.chain(jaxpr.outvars, *(equation.invars for equation in equations)):
            if not isinstance(atom, jex.Literal):
                uses[atom] = uses.get(atom, 0) + 1
        read = lambda atom: self.space.constant(literal(atom)) if isinstance(atom, jex.Literal) else known[atom]  # noqa: E731
        for equation in equations:
            results = self.equation(equation, [read(atom) for atom in equation.invars])
            for variable, value in zip(equation.outvars, results, strict=True):
                # What is read more than once, and what is a single number, is computed once.
                again = uses.get(variable, 0) > 1 or not value.shape
                if again and uses.get(variable, 0) and isinstance(value, Lazy) and value.known:
                    value = self.space.stored(value)
                known[variable] = value
        return [read(atom) for atom in jaxpr.outvars]

    def folded(self, equation: Any, arguments: Sequence[Value]) -> list[Value] | None:
        """The outputs as constants, where the arguments are."""
        if not all(isinstance(value, Constant) for value in arguments) or equation.primitive.name not in _FOLDED:
            return None
        graph = Graph()
        results = apply_rule(equation, graph, [constant_places(graph, v.array) for v in arguments])  # type: ignore
        places = [result.ravel().tolist() for result in results]
        if not all(graph.is_constant(place) for each in places for place in each):
            return None
        arrays = [
            np.array([graph.value(place) for place in each], type_of(variable.aval)).reshape(variable.aval.shape)
            for each, variable in zip(places, equation.outvars, strict=True)
        ]
        return [self.space.constant(array) for array in arrays]

    def equation(self, equation: Any, arguments: list[Value]) -> list[Value]:
        name = equation.primitive.name
        if len(self.code.lines) > _LONGEST:
            raise Unsupported("a step this long")
        constants = self.folded(equation, arguments)
        if constants is not None:
            return constants
        for value in arguments:
            if isinstance(value, Constant) and value.array.size and not value.uniform and not is_pair(value.dtype):
                value.table()
        try:
            inner = inner_jaxpr(equation)
        except Unsupported as error:
            return [self.unknown(error.what, variable.aval) for variable in equation.outvars]
        if inner is not None:
            return self.evaluate(inner, arguments)
        if name in ELEMENTWISE:
            return [self.elementwise(equation, arguments)]
        rule = getattr(self, f"_{name}", None) or (self.reduction if name in _REDUCTIONS else None)
        if rule is not None:
            return list(rule(equation, *arguments))
        if name not in RULES:
            return [self.unknown(f"the primitive {name}", variable.aval) for variable in equation.outvars]
        return self.written_out(equation, arguments)

    def unknown(self, what: str, aval: Any) -> Value:
        """As in `scalarise`: an error only if something depends on it."""
        dtype = type_of(aval)
        return Lazy(tuple(aval.shape), dtype, lambda graph, index: graph.unsupported(what, dtype), False)

    def elementwise(self, equation: Any, arguments: list[Value]) -> Value:
        name, params, aval = equation.primitive.name, equation.params, equation.outvars[0].aval
        dtype = type_of(aval)

        def build(graph: Graph, index: Index) -> int:
            # Axes of one element, and single numbers, are broadcast.
            places = [
                value.build(graph, tuple(i if n > 1 else 0 for i, n in zip(index, value.shape, strict=False)))
                for value in arguments
            ]
            return int(elementwise(graph, name, params, [np.array(place) for place in places], dtype))

        return Lazy(tuple(aval.shape), dtype, build)

    def written_out(self, equation: Any, arguments: list[Value]) -> list[Value]:
        """An equation by the rules for scalars."""
        shapes = [*(value.shape for value in arguments), *(variable.aval.shape for variable in equation.outvars)]
        if max(int(np.prod(shape)) for shape in shapes) > _LONGEST:
            raise Unsupported("a step this long")
        graph = Graph(limit=_LONGEST)
        places = [
            np.array([value.build(graph, index) for index in np.ndindex(value.shape)], np.int64).reshape(value.shape)
            for value in arguments
        ]
        try:
            results = apply_rule(equation, graph, places)
        except TooLarge:
            raise Unsupported("a step this long") from None
        rooms = []
        for result, variable in zip(results, equation.outvars, strict=True):
            room = self.space.room(variable.aval.shape, type_of(variable.aval))
            places = [int(place) for place in result.ravel()]
            memories = {room: places} if isinstance(room, Memory) else {
                part: [graph.parts(place)[which] for place in places] for which, part in enumerate(room.parts)
            }  # fmt: skip
            for memory, each in memories.items():
                for index, value in zip(np.ndindex(room.shape), self.space.emitted(graph, each), strict=True):
                    self.code.store(memory.dtype, value, memory.address(self.code, index))
            rooms.append(room)
        return rooms

    # Data moved about: the same elements under other indices.

    def _transpose(self, equation: Any, x: Any):
        order = equation.params["permutation"]
        back = np.argsort(order)
        return [self.space.view(x, [x.shape[axis] for axis in order], lambda index: tuple(index[k] for k in back))]

    def _broadcast_in_dim(self, equation: Any, x: Any, *_):
        shape, where = equation.params["shape"], equation.params["broadcast_dimensions"]
        axes = lambda index: tuple(0 if x.shape[k] == 1 else index[w] for k, w in enumerate(where))  # noqa: E731
        return [self.space.view(x, shape, axes)]

    def _squeeze(self, equation: Any, x: Any):
        gone = set(equation.params["dimensions"])
        kept = [axis for axis in range(len(x.shape)) if axis not in gone]

        def axes(index: Any):
            full: list[Any] = [0] * len(x.shape)
            for axis, i in zip(kept, index, strict=True):
                full[axis] = i
            return tuple(full)

        return [self.space.view(x, [x.shape[axis] for axis in kept], axes)]

    def _reshape(self, equation: Any, x: Any, *_: Any) -> list[Any]:
        shape = tuple(equation.outvars[0].aval.shape)
        if [size for size in shape if size > 1] == [size for size in x.shape if size > 1]:
            real = [axis for axis, size in enumerate(shape) if size > 1]
            old = [axis for axis, size in enumerate(x.shape) if size > 1]

            def axes(index: Any):
                full: list[Any] = [0] * len(x.shape)
                for axis, other in zip(real, old, strict=True):
                    full[other] = index[axis]
                return tuple(full)

            return [self.space.view(x, shape, axes)]
        memory = self.space.stored(x)
        if isinstance(memory, Both):
            parts: Any = [self._reshape(equation, part)[0] for part in memory.parts]
            return [memory._replace(parts=tuple(parts))]
        if memory.strides != row_major(memory.shape):
            room = self.space.room(memory.shape, memory.dtype)
            self.space.write(memory, room)
            memory = room
        return [memory._replace(shape=shape, strides=row_major(shape))]

    _expand_dims = _reshape

    def _slice(self, equation: Any, x: Any):
        starts, steps = equation.params["start_indices"], equation.params["strides"] or (1,) * len(x.shape)
        if any(step != 1 for step in steps) and not isinstance(x, Memory | Both):
            x = self.space.stored(x)
        return [self.space.window(x, equation.outvars[0].aval.shape, starts, steps)]

    def _split(self, equation: Any, x: Any) -> list[Any]:
        axis, starts = equation.params["axis"], np.cumsum([0, *equation.params["sizes"]])
        pieces = []
        for size, start in zip(equation.params["sizes"], starts, strict=False):
            shape, first = list(x.shape), [0] * len(x.shape)
            shape[axis], first[axis] = int(size), int(start)
            pieces.append(self.space.window(x, shape, first, [1] * len(shape)))
        return pieces

    def _concatenate(self, equation: Any, *arrays: Any):
        room = self.space.room(equation.outvars[0].aval.shape, arrays[0].dtype)
        start, axis = 0, equation.params["dimension"]
        for array in arrays:
            first = [0] * len(room.shape)
            first[axis] = start
            self.space.write(array, self.space.window(room, array.shape, first, [1] * len(first)))
            start += array.shape[axis]
        return [room]

    # Sums.

    def reduction(self, equation: Any, x: Any):
        axes, op = tuple(sorted(map(int, equation.params["axes"]))), _REDUCTIONS[equation.primitive.name]
        if not axes or 0 in x.shape:
            return self.written_out(equation, [x])
        return [self._reduced(x, axes, op)]

    def _reduced(self, x: Any, axes: tuple[int, ...], op: str) -> Memory:
        kept = [axis for axis in range(len(x.shape)) if axis not in axes]
        inner = [range(x.shape[axis]) for axis in axes]
        terms = math.prod(len(each) for each in inner)
        if terms > _DEPTH * _DEPTH:
            *others, last = axes
            if others:
                return self._reduced(self._reduced(x, (last,), op), tuple(others), op)
            return self._reduced_by_blocks(x, last, op)
        if isinstance(x, Lazy) and x.known and (terms > _DEPTH or _is_dear(x)):
            x = self.space.stored(x)  # by a loop: written out for each term of the sum it would be long

        def build(graph: Graph, index: Index) -> int:
            places = []
            for element in itertools.product(*inner):
                full: list[Any] = [0] * len(x.shape)
                for axis, i in zip((*kept, *axes), (*index, *element), strict=True):
                    full[axis] = i
                places.append(x.build(graph, tuple(full)))
            return tree(graph, op, places)

        return self.space.stored(Lazy(tuple(x.shape[axis] for axis in kept), x.dtype, build))

    def _reduced_by_blocks(self, x: Any, axis: int, op: str) -> Memory:
        """A long axis: blocks of it by a loop, then what the blocks have given, and the rest."""
        blocks, rest = divmod(x.shape[axis], _DEPTH)

        def element(graph: Graph, index: Index, start: "int | str", i: int) -> int:
            return x.build(graph, (*index[:axis], self.space.shifted(start, i), *index[axis:]))

        def block(graph: Graph, index: Index) -> int:
            k = index[axis]
            start = k * _DEPTH if isinstance(k, int) else self.code.let(f"mul i64 {k}, {_DEPTH}")
            others = (*index[:axis], *index[axis + 1 :])
            return tree(graph, op, [element(graph, others, start, i) for i in range(_DEPTH)])

        shape = list(x.shape)
        shape[axis] = blocks
        whole = self._reduced(self.space.stored(Lazy(tuple(shape), x.dtype, block)), (axis,), op)
        if not rest:
            return whole

        def build(graph: Graph, index: Index) -> int:
            last = [element(graph, index, blocks * _DEPTH, i) for i in range(rest)]
            return tree(graph, op, [whole.build(graph, index), *last])

        return self.space.stored(Lazy(whole.shape, x.dtype, build))

    def _dot_general(self, equation: Any, x: Any, y: Any):
        dtype = type_of(equation.outvars[0].aval)
        floating = dtype.startswith("float") and x.dtype == dtype and y.dtype == dtype
        if not floating or 0 in (*x.shape, *y.shape):
            return self.written_out(equation, [x, y])
        return [self.products.of(equation, self.space.stored(x), self.space.stored(y))]

    def _scan(self, equation: Any, *arguments: Any):
        """A loop of known length: a few passes one after the other, many as a loop in the code."""
        params = equation.params
        n_constants, n_carry, length = params["num_consts"], params["num_carry"], params["length"]
        constants, carry = arguments[:n_constants], list(arguments[n_constants : n_constants + n_carry])
        slices = [self.space.stored(each) for each in arguments[n_constants + n_carry :]]
        rooms = [self.space.room(v.aval.shape, type_of(v.aval)) for v in equation.outvars[n_carry:]]

        def passed(carry: Sequence[Value], k: "int | str") -> list[Value]:
            rows = [self._row(memory, k) for memory in slices]
            out = self.evaluate(params["jaxpr"], [*constants, *carry, *rows])
            for value, room in zip(out[n_carry:], rooms, strict=True):
                self.space.write(value, self._row(room, k))
            return out[:n_carry]

        if length <= _FEW:
            for k in range(length)[:: -1 if params["reverse"] else 1]:
                after = passed(carry, k)
                carry = [value if isinstance(value, Constant) else self.space.stored(value) for value in after]
            return [*carry, *rooms]
        constants = [self._settled(value) for value in constants]
        held = [self.space.copied(value) for value in carry]
        with loop(self.code, length, "s") as counter:
            k = self.code.let(f"sub i64 {length - 1}, {counter}") if params["reverse"] else counter
            after = [self.space.copied(value) for value in passed(held, k)]
            for value, room in zip(after, held, strict=True):
                self.space.write(value, room)
        return [*held, *rooms]

    def _while(self, equation: Any, *arguments: Any):
        """A loop that ends with the last lane; what a lane carries stays as it is once its own has ended."""
        params, code = equation.params, self.code
        if params["cond_jaxpr"].out_avals[0].shape:  # a loop under `vmap`, with a condition for each row
            return self.written_out(equation, list(arguments))
        n_cond, n_body = params["cond_nconsts"], params["body_nconsts"]
        constants = [self._settled(value) for value in arguments[: n_cond + n_body]]
        held = [self.space.copied(value) for value in arguments[n_cond + n_body :]]
        number = code.count
        code.count += 1
        code.put(f"br label %while{number}")
        code.label(f"while{number}")
        (ends,) = self.evaluate(params["cond_jaxpr"], [*constants[:n_cond], *held])
        graph = Graph()
        (mask,) = self.space.emitted(graph, [ends.build(graph, ())])
        mask = code.goes_on(mask)
        code.put(f"br i1 {code.any(mask)}, label %again{number}, label %ended{number}")
        code.label(f"again{number}")
        with code.running(mask):
            after = [self.space.copied(value) for value in
                     self.evaluate(params["body_jaxpr"], [*constants[n_cond:], *held])]  # fmt: skip
        for value, room in zip(after, held, strict=True):
            self.space.write_where(mask, value, room)
        code.put(f"br label %while{number}")
        code.label(f"ended{number}")
        return held

    def _settled(self, value: Value) -> Value:
        """Computed before a loop, not in each pass of it."""
        return self.space.stored(value) if isinstance(value, Lazy) and value.known else value

    def _row(self, memory: Any, k: "int | str") -> Any:
        if isinstance(memory, Both):
            return memory.each(lambda part: self._row(part, k))
        part = memory._replace(shape=memory.shape[1:], strides=memory.strides[1:])
        step = memory.strides[0] * memory.step(self.code)
        if isinstance(k, int):
            return part._replace(start=memory.start + k * step)
        return part._replace(base=self.code.address(memory.base, self.code.let(f"mul i64 {k}, {step}")))


def _is_dear(value: Lazy) -> bool:
    """Whether an element takes a call of a mathematical function."""
    graph = Graph()
    place = value.build(graph, (0,) * len(value.shape))
    return any(graph.nodes[k].op in mathematics.FUNCTIONS | {"loop"} for k in graph.live([place]))


# Of constants, these are computed when the code is written: indices and masks, not large products.
_FOLDED = {
    "broadcast_in_dim", "concatenate", "reshape", "squeeze", "expand_dims", "iota", "transpose", "convert_element_type",
    "add", "sub", "mul", "lt", "le", "gt", "ge", "eq", "ne", "select_n", "slice", "rev", "stack", "iota_2x32_shape",
}  # fmt: skip
_REDUCTIONS = {
    "reduce_sum": "add", "reduce_max": "max", "reduce_min": "min", "reduce_prod": "mul", "reduce_and": "and",
    "reduce_or": "or",
}  # fmt: skip
