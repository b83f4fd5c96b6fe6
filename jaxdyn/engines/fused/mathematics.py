"""Mathematical functions of vectors, as LLVM functions.

Nearly all are vector code of our own (`exponentials`, `trigonometry`, `roots`), with the same bits on every processor;
the few others call the C library lane by lane. In single precision the exponential ones are computed in it (`singles`),
the others in double and rounded.
"""

from collections.abc import Callable, Iterable

from . import exponentials, roots, singles, trigonometry
from .arithmetic import Value, Vectors

LIBRARY = {"erfc", "lgamma"}
OWN: dict[str, Callable[..., Value]] = {
    "exp": exponentials.exp, "exp2": exponentials.exp2, "expm1": exponentials.expm1, "log": exponentials.log,
    "log1p": exponentials.log1p, "pow": exponentials.power, "sinh": exponentials.sinh, "cosh": exponentials.cosh,
    "tanh": exponentials.tanh, "asinh": exponentials.asinh, "acosh": exponentials.acosh, "atanh": exponentials.atanh,
    "sin": trigonometry.sin, "cos": trigonometry.cos, "tan": trigonometry.tan, "asin": trigonometry.asin,
    "acos": trigonometry.acos, "atan": trigonometry.atan, "atan2": trigonometry.atan2, "cbrt": roots.cbrt,
    "erf": roots.erf,
}  # fmt: skip
SINGLE: dict[str, Callable[..., Value]] = {
    "exp": singles.exp, "exp2": singles.exp2, "log": singles.log, "tanh": singles.tanh, "erf": singles.erf,
}  # fmt: skip
FUNCTIONS = {*OWN, *LIBRARY}
_BOUNDED = {"sin", "cos", "tan"}  # the library's beyond `trigonometry.BOUND`
_TWO = {"pow", "atan2"}
_WRITTEN = 12  # uses of a function that are written out in their place: each is some fifty instructions


def symbol(function: str, dtype: str, lanes: int) -> str:
    return f"jaxdyn.{function}.f{dtype[5:]}.{lanes}"


def definitions(helpers: Iterable[tuple[str, str]], lanes: int, module: str) -> list[str]:
    """The text of the functions a module's text uses, and of what they use; those used often are called there."""
    calls: dict[str, int] = {}
    for function, dtype in helpers:
        calls[function] = calls.get(function, 0) + module.count(f"@{symbol(function, dtype, lanes)}(")
    single = sorted(function for function, dtype in helpers if dtype == "float32")
    wanted = {function for function, dtype in helpers if dtype == "float64"} | {*single} - {*SINGLE}
    text = [_single(each, lanes, calls[each]) if each in SINGLE else _by_double(each, lanes) for each in single]
    called: dict[str, None] = {}
    for function in sorted(wanted):
        if function in LIBRARY:
            text.append(_library(symbol(function, "float64", lanes), function, lanes))
            called[function] = None
        else:
            text.append(_own(function, lanes, _attributes(calls[function])))
        if function in _BOUNDED:
            text.append(_library(_far(function, lanes), function, lanes))
            called[function] = None
    return text + [f"declare double @{name}(double)" for name in called]


def _attributes(uses: int) -> str:
    return "#0" if uses <= _WRITTEN else "#1"


def _single(function: str, lanes: int, uses: int) -> str:
    kind = f"<{lanes} x float>"
    head = f"define internal {kind} @{symbol(function, 'float32', lanes)}({kind} %x) {_attributes(uses)} {{"
    code = Vectors(head, lanes, 32)
    return code.end(SINGLE[function](code, Value(code, "%x", "real")))


def _far(function: str, lanes: int) -> str:
    return f"jaxdyn.far.{function}.{lanes}"


def _own(function: str, lanes: int, attributes: str) -> str:
    kind = f"<{lanes} x double>"
    names = ("%x", "%y") if function in _TWO else ("%x",)
    listed = ", ".join(f"{kind} {name}" for name in names)
    code = Vectors(f"define internal {kind} @{symbol(function, 'float64', lanes)}({listed}) {attributes} {{", lanes)
    result = OWN[function](code, *(Value(code, name, "real") for name in names))
    if function not in _BOUNDED:
        return code.end(result)
    size = abs(Value(code, "%x", "real"))
    far = code.where(size < float("inf"), size, 0.0) > trigonometry.BOUND
    code.lines += [
        f"  %bits = bitcast <{lanes} x i1> {far.name} to i{lanes}",
        f"  %any = icmp ne i{lanes} %bits, 0",
        "  br i1 %any, label %far, label %near",
        "near:",
        f"  ret {kind} {result.name}",
        "far:",
        f"  %theirs = call {kind} @{_far(function, lanes)}({kind} %x)",
    ]
    return code.end(code.where(far, Value(code, "%theirs", "real"), result))


def _library(name: str, function: str, lanes: int) -> str:
    """One call a lane; it is long, and not written out wherever it is used."""
    kind, result = f"<{lanes} x double>", "poison"
    lines = [f"define internal {kind} @{name}({kind} %x) #1 {{"]
    for lane in range(lanes):
        lines.append(f"  %x.{lane} = extractelement {kind} %x, i32 {lane}")
        lines.append(f"  %r.{lane} = call double @{function}(double %x.{lane})")
        lines.append(f"  %o.{lane} = insertelement {kind} {result}, double %r.{lane}, i32 {lane}")
        result = f"%o.{lane}"
    return "\n".join([*lines, f"  ret {kind} {result}", "}"])


def _by_double(function: str, lanes: int) -> str:
    wide, narrow = f"<{lanes} x double>", f"<{lanes} x float>"
    names = ("x", "y") if function in _TWO else ("x",)
    listed = ", ".join(f"{narrow} %{name}" for name in names)
    return "\n".join([
        f"define internal {narrow} @{symbol(function, 'float32', lanes)}({listed}) #0 {{",
        *(f"  %{name}.d = fpext {narrow} %{name} to {wide}" for name in names),
        f"  %r = call {wide} @{symbol(function, 'float64', lanes)}({', '.join(f'{wide} %{name}.d' for name in names)})",
        f"  %s = fptrunc {wide} %r to {narrow}",
        f"  ret {narrow} %s",
        "}",
    ])  # fmt: skip
