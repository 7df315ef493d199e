"""Random schemas, values that fulfil them, and random ways through a grammar. Everything comes from the given generator."""

from __future__ import annotations

import json
import random
from typing import Any

from agent.grammar.leaves import Literal, PlainText, Quoted
from agent.grammar.matcher import State

LETTERS = "abcxyzABZ0129 _-./,:;=+<>&'()[]{}#%äß→字🌱😀\u00a0"
AWKWARD = '"\\\n\t\r\b\f\u0001\u007f\u2028'
PATTERNS = {
    "^[a-z]{2,5}$": lambda r: "".join(r.choices("abcz", k=r.randint(2, 5))),
    r"\d{3}": lambda r: text(r, 0, 4) + "042" + text(r, 0, 4),
    "^(on|off|auto)$": lambda r: r.choice(["on", "off", "auto"]),
    r"^v\d+\.\d+(-rc\d)?$": lambda r: f"v{r.randint(0, 99)}.{r.randint(0, 99)}" + r.choice(["", "-rc1"]),
    "^[^<>]*$": lambda r: text(r, 0, 8).replace("<", "").replace(">", ""),
    r'^"\\\n?$': lambda r: r.choice(['"\\', '"\\\n']),
    "^é+$|^😀{2}": lambda r: r.choice(["é", "ééé", "😀😀", "😀😀 und"]),
}
FORMATS = {
    "date": lambda r: f"{r.randint(1, 9999):04}-{r.randint(1, 12):02}-{r.randint(1, 28):02}",
    "time": lambda r: f"{r.randint(0, 23):02}:{r.randint(0, 59):02}:{r.randint(0, 59):02}" + r.choice(["Z", ".25Z", "+02:00"]),
    "date-time": lambda r: FORMATS["date"](r) + "T" + FORMATS["time"](r),
    "uuid": lambda r: "-".join("".join(r.choices("0123456789abcdef", k=k)) for k in (8, 4, 4, 4, 12)),
    "ipv4": lambda r: ".".join(str(r.randint(0, 255)) for _ in range(4)),
    "ipv6": lambda r: r.choice(["::", "::1", "fe80::1:2", "1:2:3:4:5:6:7:8", "2001:db8::"]),
    "email": lambda r: r.choice(["a@b", "jo.doe+x@mail.example.org"]),
    "hostname": lambda r: r.choice(["a", "pi-4.local", "x1.example.com"]),
    "uri": lambda r: r.choice(["http://a.b/c?d=e#f", "mqtt:x", "urn:a:b%20c"]),
}


def text(r: random.Random, low: int, high: int) -> str:
    return "".join(r.choice(AWKWARD if r.random() < 0.1 else LETTERS) for _ in range(r.randint(low, high)))


def schema(r: random.Random, depth: int = 3) -> dict[str, Any]:
    """A schema without anything that only a check afterwards could tell."""
    kinds = [_string, _string, _integer, _integer, _number, _simple, _enum]
    if depth > 0:
        kinds += [_object, _object, _array, _array, _any_of, _free_object]
    return r.choice(kinds)(r, depth)


def _string(r: random.Random, depth: int) -> dict[str, Any]:
    out: dict[str, Any] = {"type": "string"}
    kind = r.random()
    if kind < 0.25:
        out["pattern"] = r.choice(list(PATTERNS))
    elif kind < 0.45:
        out["format"] = r.choice(list(FORMATS))
    elif kind < 0.7:
        out["minLength"] = r.randint(0, 4)
        if r.random() < 0.7:
            out["maxLength"] = out["minLength"] + r.randint(0, 6)
    return out


def _integer(r: random.Random, depth: int) -> dict[str, Any]:
    out: dict[str, Any] = {"type": "integer"}
    size = r.choice([9, 100, 5000, 10**18, 10**40])
    if r.random() < 0.6:
        out[r.choice(["minimum", "exclusiveMinimum"])] = r.randint(-size, size)
    if r.random() < 0.6:
        low = max(out.get("minimum", -size), out.get("exclusiveMinimum", -size))
        out[r.choice(["maximum", "exclusiveMaximum"])] = low + 100 + r.randint(0, size)
    if r.random() < 0.2:
        out["multipleOf"] = r.choice([1, 2, 5, 7, 30])
    return out


def _number(r: random.Random, depth: int) -> dict[str, Any]:
    out: dict[str, Any] = {"type": "number"}
    low = r.choice([0, -1, 0.1, -273.15, 1e-9, 2**53 + 1, r.uniform(-100, 100)])
    if r.random() < 0.6:
        out[r.choice(["minimum", "exclusiveMinimum"])] = low
    if r.random() < 0.6:
        out[r.choice(["maximum", "exclusiveMaximum"])] = low + r.choice([1, 0.5, 100, 1e6] if low < 1e9 else [10, 1000])
    if r.random() < 0.2:
        out = {"type": "number", "minimum": -3, "maximum": 9, "multipleOf": r.choice([0.25, 0.5, 2])}
    return out


def _simple(r: random.Random, depth: int) -> dict[str, Any]:
    return r.choice([{"type": "boolean"}, {"type": "null"}, {"type": ["integer", "null"]}, {"type": ["boolean", "string"]}])


def _enum(r: random.Random, depth: int) -> dict[str, Any]:
    options = ["red", "reddish", 'a"b', "ünïcode", "", 1, 12, 2.5, -7, None, True, [1, 2], {"k": "v"}]
    return {"enum": r.sample(options, r.randint(1, 5))} if r.random() < 0.8 else {"const": r.choice(options)}


def _object(r: random.Random, depth: int) -> dict[str, Any]:
    names = r.sample(["bed", "be", "seconds", "when", "who knows", "a-b", "ünï", 'q"', "x"], r.randint(0, 5))
    out: dict[str, Any] = {
        "type": "object",
        "properties": {name: schema(r, depth - 1) for name in names},
        "required": [name for name in names if r.random() < 0.5],
    }
    if r.random() < 0.3:
        out["additionalProperties"] = r.choice([False, True, {"type": "integer"}])
    if r.random() < 0.2:
        out["minProperties"] = r.randint(0, len(names))
    if r.random() < 0.2:
        out["maxProperties"] = max(len(out["required"]), out.get("minProperties", 0)) + r.randint(0, 2)
    return out


def _free_object(r: random.Random, depth: int) -> dict[str, Any]:
    out: dict[str, Any] = {"type": "object", "additionalProperties": schema(r, depth - 1)}
    if r.random() < 0.3:
        out["propertyNames"] = {"pattern": "^[ab]{1,2}$"}
        out["minProperties"] = r.randint(0, 6)
    return out


def _array(r: random.Random, depth: int) -> dict[str, Any]:
    out: dict[str, Any] = {"type": "array", "items": schema(r, depth - 1)}
    if r.random() < 0.5:
        out["minItems"] = r.randint(0, 3)
    if r.random() < 0.5:
        out["maxItems"] = out.get("minItems", 0) + r.randint(0, 3)
    if r.random() < 0.2:
        out["prefixItems"] = [schema(r, depth - 1) for _ in range(r.randint(1, 3))]
    return out


def _any_of(r: random.Random, depth: int) -> dict[str, Any]:
    return {"anyOf": [schema(r, depth - 1) for _ in range(r.randint(1, 3))]}


def value(r: random.Random, s: Any) -> Any:
    """A value that fulfils a schema of ``schema``, its members in the schema's order."""
    if "anyOf" in s:
        return value(r, r.choice(s["anyOf"]))
    if "enum" in s:
        return r.choice(s["enum"])
    if "const" in s:
        return s["const"]
    if "type" not in s:
        return r.choice([None, True, 5, "x", [1], {"k": []}])
    kind = s["type"] if isinstance(s["type"], str) else r.choice(s["type"])
    made: dict[str, Any] = {"null": None, "boolean": r.random() < 0.5}
    if kind in made:
        return made[kind]
    if kind == "string":
        return _string_value(r, s)
    if kind == "integer":
        return _integer_value(r, s)
    if kind == "number":
        return _number_value(r, s)
    if kind == "array":
        heads = s.get("prefixItems", [])
        low = s.get("minItems", 0)
        count = r.randint(low, s.get("maxItems", low + 3))
        return [value(r, heads[n] if n < len(heads) else s["items"]) for n in range(count)]
    return _object_value(r, s)


def _string_value(r: random.Random, s: dict[str, Any]) -> str:
    if "pattern" in s:
        return PATTERNS[s["pattern"]](r)
    if "format" in s:
        return FORMATS[s["format"]](r)
    low = s.get("minLength", 0)
    return text(r, low, s.get("maxLength", low + 12))


def _integer_value(r: random.Random, s: dict[str, Any]) -> int:
    most = 10**20 - 1  # the longest where no bound asks for more
    low = max(s.get("minimum", -(10**50)), s.get("exclusiveMinimum", -(10**50)) + 1)
    high = min(s.get("maximum", 10**50), s.get("exclusiveMaximum", 10**50) - 1)
    low = min(2 * high, -most) if low == 1 - 10**50 else low
    high = max(2 * low, most) if high == 10**50 - 1 else high
    step = s.get("multipleOf", 1)
    low, high = -(-low // step), high // step
    return step * r.choice([low, high, r.randint(low, high), min(max(low, r.randint(-20, 20)), high)])


def _number_value(r: random.Random, s: dict[str, Any]) -> int | float:
    if "multipleOf" in s:
        step = s["multipleOf"]
        return step * r.randint(int(-2 / step), int(8 / step)) + 0
    low = s.get("minimum", s.get("exclusiveMinimum"))
    if low is not None and low > 1e9:
        return int(low) + r.randint(1, 9)
    high = s.get("maximum", s.get("exclusiveMaximum"))
    low, high = (low, low + 1000) if low is not None and high is None else (low, high)
    low, high = (high - 1000, high) if high is not None and low is None else (low, high)
    found = r.uniform(low if low is not None else -1e9, high if high is not None else 1e9)
    short = round(found, r.randint(0, 6))
    for number in (short, found):
        if number and s.get("minimum", number) <= number <= s.get("maximum", number) and number not in (
            s.get("exclusiveMinimum"), s.get("exclusiveMaximum"),
        ) and s.get("exclusiveMinimum", -1e300) < number < s.get("exclusiveMaximum", 1e300):  # fmt: skip
            return number
    return low + 0.25 if high - low > 0.3 else (low + high) / 2


def _object_value(r: random.Random, s: dict[str, Any]) -> dict[str, Any]:
    members = s.get("properties", {})
    names = [name for name in members if name in s.get("required", ())]
    low, high = s.get("minProperties", 0), s.get("maxProperties", 1000)
    optional = [name for name in members if name not in names]
    r.shuffle(optional)
    for name in optional:
        if len(names) < low or (len(names) < high and r.random() < 0.5):
            names.append(name)
    out = {name: value(r, members[name]) for name in members if name in names}
    extra = s.get("additionalProperties", "properties" not in s)
    if extra is False:
        return out
    free = ["a", "b", "aa", "ab", "ba", "bb"] if "propertyNames" in s else ["a", "free", "ä key", "bedd", "", 'n"']
    r.shuffle(free)
    for name in free:
        if len(out) < low or (len(out) < high and r.random() < 0.3):
            out[name] = value(r, {} if extra is True else extra)
    return out


def dumps(found: Any, ascii_only: bool = False) -> str:
    """As json.dumps, but there is no negative zero."""
    if isinstance(found, float):
        return repr(found or 0.0)
    if isinstance(found, list):
        return "[" + ", ".join(dumps(item, ascii_only) for item in found) + "]"
    if isinstance(found, dict):
        return "{" + ", ".join(f"{json.dumps(k, ensure_ascii=False)}: {dumps(v, ascii_only)}" for k, v in found.items()) + "}"
    return json.dumps(found, ensure_ascii=ascii_only)


def homeward(state: State, r: random.Random) -> str:
    """A character that leads nearer to an end, if one is easily found."""
    found: list[tuple[float, str]] = []
    for leaf, at, _ in state.threads:
        if isinstance(leaf, Literal):
            char = leaf.text[at]
            # Of a mark that has begun the next character: to begin it again and again would lead nowhere.
            found.append((0 if leaf.text in ("]", "}", ")") else 2 - at / 1000 if at or leaf.trusted else 6, char))
            continue
        if isinstance(leaf, Quoted) and at[0] != 1:
            continue
        if isinstance(leaf, Quoted) and leaf.step(at, '"') is not None and leaf.text.accepting(at[1]):
            found.append((1, '"'))
        if not isinstance(leaf, (Quoted, PlainText)):
            continue
        where = at[1] if isinstance(leaf, Quoted) else at
        while isinstance(where[0], tuple):
            where = where[0]
        dfa = leaf.text.dfa if isinstance(leaf, Quoted) else leaf.dfa
        for code in (*(dfa.alphabet.cuts if dfa else ()), 0x41):
            char = chr(code)
            if leaf.step(at, char) is not None:
                target = dfa.step(where[0], char) if dfa else 0
                nearer = dfa is not None and target >= 0 and dfa.distance[target] < dfa.distance[where[0]]
                found.append((3 if nearer else 5, char))
    best = min((rank for rank, _ in found), default=0)
    if best == 5 and r.random() < 0.5:
        return ""
    return r.choice([char for rank, char in found if rank == best]) if found else ""


def walk(state: State, r: random.Random, soon: int = 150, pool: str = "") -> str:
    """A random way to an end: at first wherever it may go, after ``soon`` characters towards the end. It fails in a dead end."""
    out: list[str] = []
    hostile = '"\\u/nd83e}]{[,:0' + LETTERS + pool
    while not (state.complete and (len(out) > soon or not state.threads or r.random() < 0.3)):
        assert state.threads, f"a dead end behind {''.join(out)!r}"
        following, char = None, ""
        if len(out) > soon:
            char = homeward(state, r)
            following = state.advance(char) if char else None
        listed = state.next_chars()
        if following is None and listed is not None:
            char = r.choice(sorted(listed))
            following = state.advance(char)
            assert following is not None, f"{char!r} is listed and refused behind {''.join(out)!r}"
        for _ in range(200):
            if following is not None:
                break
            char = r.choice(hostile)
            following = state.advance(char)
        if following is None:
            tried = [chr(code) for code in (*range(0x20, 0x250), 0x1F600, 0x10FFFF)]
            char = next((c for c in tried if state.advance(c) is not None), "")
            following = state.advance(char) if char else None
            assert following is not None, f"nothing follows {''.join(out)!r}"
        out.append(char)
        state = following
        assert len(out) < 20_000, f"it never ends: {out[:200]}"
    return "".join(out)
