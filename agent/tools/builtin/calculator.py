"""A calculator: arithmetic read as Python's syntax and computed here, exactly where that is possible; nothing is evaluated."""

from __future__ import annotations

import ast
import decimal
import math
import operator
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from agent.tools.result import ToolError

Number = Fraction | float

MAX_BITS = 13_000  # of a numerator or denominator: about 4,000 digits
_MAX_LENGTH = 1000
_CONSTANTS: Mapping[str, float] = {"pi": math.pi, "e": math.e, "tau": math.tau}


def calculate(expression: str) -> str:
    """Work out arithmetic, like (3+4)*sqrt(2)."""
    if len(expression) > _MAX_LENGTH:
        raise ToolError(f"the expression is longer than {_MAX_LENGTH} characters")
    text = expression.strip().rstrip("=").strip()
    for sign, meant in (("^", "**"), ("×", "*"), ("·", "*"), ("÷", "/"), ("−", "-"), ("–", "-"), ("π", "pi")):
        text = text.replace(sign, meant)
    # 15% is a percentage, 10 % 3 a remainder.
    text = re.sub(r"(?<![\w.])(\d+(?:\.\d+)?)%(?!\s*[\w(.])", r"(\1/100)", text)
    try:
        tree = ast.parse(text, mode="eval")
        return _shown(_ExpressionParser(text).value(tree.body))
    except (SyntaxError, MemoryError, RecursionError):
        raise ToolError("this is no arithmetic that can be read; write it like (3 + 4) * sqrt(2)") from None
    except ZeroDivisionError:
        raise ToolError("this divides by zero") from None
    except OverflowError:
        raise ToolError("the result is too large") from None
    except (ValueError, TypeError) as e:
        raise ToolError(f"this has no value: {e}") from None


class _ExpressionParser:
    def __init__(self, text: str) -> None:
        self._text = text

    def value(self, node: ast.expr) -> Number:
        match node:
            case ast.Constant():
                return self._constant(node)
            case ast.Name():
                if node.id in _CONSTANTS:
                    return _CONSTANTS[node.id]
                raise ToolError(f"unknown name {node.id[:40]!r}: there are pi, e, tau and functions like sqrt")
            case ast.UnaryOp(op=ast.USub()):
                return -self.value(node.operand)
            case ast.UnaryOp(op=ast.UAdd()):
                return self.value(node.operand)
            case ast.BinOp():
                return _bounded(_binary(node.op, self.value(node.left), self.value(node.right)))
            case ast.Call(func=ast.Name(id=name), keywords=[]):
                return _bounded(_call(name, [self.value(a) for a in node.args]))
        raise ToolError("only numbers, + - * / // % ** ( ) and functions like sqrt can be used")

    def _constant(self, node: ast.Constant) -> Number:
        if isinstance(node.value, bool) or not isinstance(node.value, int | float):
            raise ToolError("only numbers can be used")
        if isinstance(node.value, int):
            return _bounded(Fraction(node.value))
        source = (ast.get_source_segment(self._text, node) or "").replace("_", "")
        # As it is written, so that 0.1 + 0.2 is 0.3. A huge exponent would make a huge fraction.
        if re.fullmatch(r"[\d.]{1,60}(?:[eE][+-]?\d{1,2})?", source):
            return Fraction(source)
        if math.isinf(node.value):
            raise OverflowError
        return node.value


def _bounded(value: Number) -> Number:
    if isinstance(value, Fraction):
        if max(abs(value.numerator).bit_length(), value.denominator.bit_length()) > MAX_BITS:
            raise ToolError("the result is too large")
    elif isinstance(value, complex):
        raise ToolError("the result is no real number")
    return value


def _power(base: Number, exponent: Number) -> Number:
    if isinstance(base, Fraction) and isinstance(exponent, Fraction) and exponent.denominator == 1:
        if abs(base) <= 1 and base.denominator == 1 and (base or exponent >= 0):  # of any power, without computing it
            return base if base >= 0 and exponent else Fraction(1 if exponent % 2 == 0 else int(base))
        size = max(abs(base.numerator).bit_length(), base.denominator.bit_length())
        if abs(exponent.numerator) * max(1, size - 1) > MAX_BITS:
            raise ToolError("the result is too large")
        return Fraction(base ** int(exponent))
    if float(base) < 0:
        raise ToolError("a broken power of a negative number is no real number")
    return math.pow(float(base), float(exponent))


def _binary(op: ast.operator, left: Number, right: Number) -> Number:
    if isinstance(op, ast.Pow):
        return _power(left, right)
    operations: dict[type, Callable[[Any, Any], Any]] = {
        ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
        ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod,
    }  # fmt: skip
    work = operations.get(type(op))
    if work is None:
        raise ToolError("only + - * / // % and ** can be used")
    value = work(left, right)
    return value if isinstance(value, float) else Fraction(value)


def _whole(value: Number, most: int | None = None) -> int:
    if value != int(value) or value < 0:
        raise ToolError("a whole number, 0 or more, is needed")
    if most is not None and value > most:
        raise ToolError("the result is too large")
    return int(value)


def _root(value: Number) -> Number:
    if value < 0:
        raise ToolError("the root of a negative number is no real number")
    if isinstance(value, Fraction):  # exact where it is one
        top, bottom = math.isqrt(value.numerator), math.isqrt(value.denominator)
        if top * top == value.numerator and bottom * bottom == value.denominator:
            return Fraction(top, bottom)
    return math.sqrt(value)


def _round(value: Number, digits: Number = Fraction(0)) -> Number:
    places = int(digits)
    if abs(places) > 50:
        raise ToolError("round to at most 50 digits")
    # Half away from zero, as people do it, not half to even.
    scaled = Fraction(value) * Fraction(10) ** places
    whole = math.floor(abs(scaled) + Fraction(1, 2))
    return Fraction(whole if scaled >= 0 else -whole) / Fraction(10) ** places


_ANY = 50
_FUNCTIONS: Mapping[str, tuple[int, int, Callable[..., Any]]] = {
    "sqrt": (1, 1, _root), "abs": (1, 1, abs), "round": (1, 2, _round), "pow": (2, 2, _power),
    "floor": (1, 1, math.floor), "ceil": (1, 1, math.ceil), "trunc": (1, 1, math.trunc), "int": (1, 1, math.trunc),
    "min": (1, _ANY, min), "max": (1, _ANY, max), "sum": (1, _ANY, lambda *v: sum(v)),
    "mean": (1, _ANY, lambda *v: sum(v) / len(v)), "avg": (1, _ANY, lambda *v: sum(v) / len(v)),
    "factorial": (1, 1, lambda n: math.factorial(_whole(n, 1400))),
    "comb": (2, 2, lambda n, k: math.comb(_whole(n, 12_000), _whole(k, 12_000))),
    "perm": (2, 2, lambda n, k: math.perm(_whole(n, 12_000), _whole(k, 1000))),
    "gcd": (2, _ANY, lambda *v: math.gcd(*map(_whole, v))), "lcm": (2, 4, lambda *v: math.lcm(*map(_whole, v))),
    "log": (1, 2, lambda v, base=math.e: math.log(v) if base == math.e else math.log(v) / math.log(base)),
    "ln": (1, 1, math.log), "log2": (1, 1, math.log2), "log10": (1, 1, math.log10), "exp": (1, 1, math.exp),
    "sin": (1, 1, math.sin), "cos": (1, 1, math.cos), "tan": (1, 1, math.tan), "asin": (1, 1, math.asin),
    "acos": (1, 1, math.acos), "atan": (1, 1, math.atan), "atan2": (2, 2, math.atan2), "hypot": (1, _ANY, math.hypot),
    "degrees": (1, 1, math.degrees), "radians": (1, 1, math.radians), "cbrt": (1, 1, math.cbrt),
}  # fmt: skip


def _call(name: str, values: list[Number]) -> Number:
    if name not in _FUNCTIONS:
        raise ToolError(f"unknown function {name[:40]!r}: there are {', '.join(sorted(_FUNCTIONS))}")
    least, most, work = _FUNCTIONS[name]
    if not least <= len(values) <= most:
        raise ToolError(f"{name} takes {least}{f' to {most}' if most != least else ''} numbers, not {len(values)}")
    value = work(*values)
    return value if isinstance(value, float) else Fraction(value)


def _shown(value: Number) -> str:
    if isinstance(value, Fraction):
        if value.denominator == 1:
            return str(value.numerator)
        bottom = value.denominator
        while bottom % 2 == 0:
            bottom //= 2
        while bottom % 5 == 0:
            bottom //= 5
        if bottom == 1 and value.denominator < 10**15:  # it ends: show it whole
            with decimal.localcontext(prec=MAX_BITS):
                return f"{decimal.Decimal(value.numerator) / value.denominator:f}"
        value = float(value)
    if math.isnan(value) or math.isinf(value):
        raise ToolError("the result is too large")
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else f"{value:.12g}"
