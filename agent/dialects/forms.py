"""The forms in which calls come: in the dialect's own style, and in what models make of it.

Between a dialect's own marks any form is read: JSON objects (in a list, in a fence, with doubled braces), ``name(key=value)`` and
``name {...}`` of an offered tool, the tags of another family. Without them, see ``Trial``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache

from agent.dialects import families
from agent.dialects.base import CallBroken, CallDone, CallStart, Dialect, Piece
from agent.dialects.reading import CUT_OFF, Reading
from agent.dialects.stream import SPACE, Marks, Stream, Wait
from agent.dialects.styles.json import KNOWN_KEYS, json_arguments, object_call
from agent.dialects.styles.python import python_call
from agent.dialects.table import STYLES

_LETTERS = "abcdefghijklmnopqrstuvwxyz_ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_WRAPPERS = ("tools", "tool_calls", "toolcall", "TOOLCALL", "function_call", "function_calls", "functioncall")
# The marks with which calls of other families begin, and how they are read.
FOREIGN: Mapping[str, Dialect] = {
    **{f"<{tag}>": Dialect(tag, "json", f"<{tag}>", f"<{tag}>", f"</{tag}>") for tag in _WRAPPERS},
    "functools": Dialect("functools", "json", "functools", "functools[", "]"),
    "<|python_tag|>": Dialect("python_tag", "json", "<|python_tag|>", "<|python_tag|>"),
    **{
        d.trigger: d
        for d in families.DIALECTS.values()
        if d.name != "generic" and not d.only_at_start and not d.text_name and len(d.trigger) > 4
    },
    "<function=": families.QWEN_CODER,
}
FOREIGN_MARKS = Marks(FOREIGN)
# What may stand behind a call without its opening mark: the closing marks of all families, and ends of turns.
STRAY = Marks([
    "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<|endoftext|>", "</s>", "<end_of_turn>",
    *(mark for d in FOREIGN.values() for mark in Reading(d, {}, id).closers.marks),
])  # fmt: skip


@lru_cache(maxsize=32)
def tool_marks(names: tuple[str, ...], braces: bool) -> Marks:
    """What a call of one of these tools begins with when it is its name and the arguments in parentheses or, perhaps, braces."""
    after = ("(", ".call(", *(("{", " {", "\n{") if braces else ()))
    return Marks(name + mark for name in names for mark in after)


def section(reading: Reading, mark: str) -> Wait[None]:
    """Read the calls behind a mark, which is taken, and the marks that close them."""
    stream, dialect = reading.stream, reading.dialect
    reading.begin(mark)
    listed = matched = fenced = False
    whole = dialect.section_open + dialect.call_open
    for opening in dict.fromkeys((whole, dialect.call_open, *dialect.aliases, dialect.section_open)):
        text = opening if opening.startswith(mark) else opening.lstrip()
        if not matched and text.startswith(mark) and (size := (yield from stream.loosely(text[len(mark) :]))) >= 0:
            stream.take(size)
            listed = dialect.section_open.rstrip().endswith("[") and opening in (whole, dialect.section_open)
            matched = True
            fenced = "```" in text
    yield from calls(reading, listed=listed)
    if not (yield from stream.expect(dialect.section_close)):  # the list's bracket is taken
        yield from stream.expect(dialect.section_close.lstrip().removeprefix("]"))
    if fenced:
        yield from stream.expect("```")
    yield from reading.past_call()


def calls(reading: Reading, *, listed: bool = False) -> Wait[bool]:
    """Read one call after the other; ``listed``: a list has begun. False if what watches the reading called it off."""
    stream, dialect = reading.stream, reading.dialect
    style = STYLES[dialect.style]
    named = tool_marks(tuple(reading.tools), dialect.style in ("json", "tagged"))
    read = 0
    again = True  # something says that a call comes next
    fenced = over = False
    while True:
        yield from stream.skip(SPACE + ",;" if read else SPACE)
        next_one = yield from stream.char()
        if not read and reading.trial is None and (opener := (yield from stream.starts(reading.openers))):
            stream.take(len(opener))  # it came twice
        elif next_one == "[" and not listed and not read:
            listed = True
            stream.take(1)
        elif next_one == "]" and listed:
            stream.take(1)
            listed, over, again = False, True, False
        elif next_one == "{" and not over:
            if not (yield from object_call(reading)):
                return False
            read += 1
            again, over = yield from _between(reading)
        elif (again or listed) and not over and (call := (yield from stream.starts(named))):
            yield from _of_known(reading, call)
            read += 1
            again, over = yield from _between(reading)
        elif (again or listed) and not over and reading.trial is None and (yield from style.read(reading)):
            read += 1
            again, over = yield from _between(reading)
        elif next_one == "`" and (fenced or not read) and (yield from _skip_fence(stream)):
            fenced = not fenced
        elif next_one == "}" and read:
            stream.take(1)  # a brace too many
        elif next_one == "<" and not read and (other := (yield from stream.starts(FOREIGN_MARKS))):
            yield from foreign(reading, other)
            read, again = read + 1, False
        else:
            break
    if not read and not over and reading.trial is None:
        yield from reading.give_up(reading.draft(), "no call follows" if next_one else CUT_OFF)
    reading.written()
    return read > 0 or reading.trial is None


def foreign(reading: Reading, mark: str) -> Wait[None]:
    """Read calls of another family, whose mark comes next."""
    own, trial = reading.dialect, reading.trial
    reading.stream.take(len(mark))
    reading.use(FOREIGN[mark])
    reading.trial = None  # its own marks make it a call
    yield from section(reading, mark)
    reading.use(own)
    reading.trial = trial


def _between(reading: Reading) -> Wait[tuple[bool, bool]]:
    """Take the marks behind a call and before the next: whether a next one begins, and whether the marks say that none does."""
    dialect = reading.dialect
    if reading.trial is not None:
        return False, False
    closed = (yield from reading.stream.expect(dialect.call_close)) and bool(dialect.call_close.strip())
    reading.begin()
    again = bool(dialect.call_open.strip()) and (yield from reading.stream.expect(dialect.separator + dialect.call_open))
    return again, closed and not again


def _of_known(reading: Reading, mark: str) -> Wait[None]:
    """Read a call of an offered tool that begins with its name; ``mark`` comes next."""
    name = next(name for name in sorted(reading.tools, key=len, reverse=True) if mark.startswith(name))
    reading.stream.take(len(mark) - 1)
    draft = reading.draft()
    if mark.endswith("("):
        yield from python_call(reading, draft, name)
    else:
        draft.name(name)
        yield from json_arguments(reading, draft, name)


def _skip_fence(stream: Stream) -> Wait[bool]:
    """Take a code fence and the word behind it if one comes next; other backticks stay."""
    if (yield from stream.loosely("```")) < 0:
        return False
    yield from stream.skip("`")
    yield from stream.skip(_LETTERS, 16)
    return True


class Trial:
    """Decides whether what begins like a call, but not with the mark of one, is one; until then its pieces wait.

    Such a call begins the answer or a line of it, names offered tools only, gives each its arguments, and nothing but closing
    marks is behind it; a closing mark itself decides, too. So a text that quotes a call stays words. Where JSON without marks is
    the family's way to write a call (``at_once``), a tool's name, or a name with arguments, is enough at the start of the answer.

    Attributes:
        won: it is a call.
    """

    def __init__(self, reading: Reading, at_once: bool) -> None:
        self.won = False
        self.at_once = at_once
        self._reading = reading
        self._emit = reading.emit
        self._count = reading.count
        self._held: list[Piece] = []
        self._objects = self._with_arguments = 0
        reading.emit = self._held.append
        reading.trial = self

    def key(self, key: str) -> bool:
        if key in ("arguments", "parameters", self._reading.dialect.arguments_key):
            self._with_arguments += 1
            if self.at_once and self._objects:
                self._win()
        return self.won or (key in {*KNOWN_KEYS, self._reading.dialect.name_key, self._reading.dialect.arguments_key} - {"args"})

    def name(self, name: str) -> bool:
        self._objects += 1
        known = name in self._reading.tools
        if known and self.at_once:
            self._win()
        return self.won or self.at_once or known

    def end(self) -> bool:
        """Nothing of it follows. Whether it was a call; otherwise what waited is forgotten."""
        if not self.won and not (self.at_once and self._objects) and self._is_call():
            self._win()
        if not self.won:
            self._reading.emit = self._emit
            self._reading.count = self._count
        self._reading.trial = None
        return self.won

    def lose(self) -> bool:
        """It is no call."""
        self._held.clear()
        return self.end()

    def _is_call(self) -> bool:
        started = [piece.name for piece in self._held if isinstance(piece, CallStart)]
        if not started or not all(name in self._reading.tools for name in started):
            return False
        broken = [piece.why for piece in self._held if isinstance(piece, CallBroken)]
        if broken:  # half a call is none, and no words either
            return broken == [CUT_OFF]
        return self._objects == self._with_arguments and any(isinstance(piece, CallDone) for piece in self._held)

    def _win(self) -> None:
        if not self.won:
            self.won = True
            self._reading.emit = self._emit
            for piece in self._held:
                self._emit(piece)


def starters(names: Iterable[str], own: Marks, before: str) -> list[str]:
    """What begins a call without the dialect's own marks, each behind ``before``."""
    marks = ["{", "[{", *(mark for mark in FOREIGN_MARKS.marks if mark not in own.marks)]
    marks += [mark for name in names for mark in (f"{name}(", f"{name}.call(", f"[{name}(", f"{name}\n{{")]
    return [before + mark for mark in marks]
