"""A command as a model writes it: split into words as a shell would, with what only a shell could do found and named.

It is no parser of the whole language: it finds every simple command, wherever it stands (in lists, pipes, groups, loops,
substitutions, here-documents), and says of a word what of it only a shell would know.

Source: POSIX.1-2017, Shell Command Language, 2.2 (quoting), 2.3 (tokens), 2.6 (expansions), 2.7 (redirections), 2.10 (grammar).
"""

from __future__ import annotations

import codecs
import re
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from functools import lru_cache

from agent.text.shell_words import UNKNOWN, CommandLine, Operator, Word, closing

LONGEST = 100_000  # characters of a command: Linux takes 128 KiB in one argument
_DEEPEST = 30  # substitutions within each other

_SEPARATOR = re.compile(r"\|\||\|&|\||&&|&|;;&|;&|;;|;")
_SEPARATORS = {"|": "a pipe", "|&": "a pipe", "&": "a background job"}
_REDIRECTION = re.compile(r"<<<|<<-?|<>|<&|>&|>>|>\||<|>")
_VARIABLE = re.compile(r"\$(?:[A-Za-z_]\w*|[0-9@*#?$!-])")
_DESCRIPTOR = re.compile(r"\d+|\{\w+\}")  # before a redirection
_PATTERN = re.compile(r"\$\{(?:\w+|[@*#?$!-])[#%/]")  # whose quotes count within double quotes too
_BRACES = re.compile(r",|\.\.")
_GOES_ON = re.compile(r"(?:\$\{?\w*|[|&;<>]+)\\\n")  # within a sign
_LINE = re.compile(r"[^\n]*")
_LINES = re.compile(r"(?:[^\\\n]|\\[\s\S])*\\?")  # one, with those that it goes on in
_WILD = frozenset("*?[")


@lru_cache(maxsize=64)  # the rules, the risks and the tool each look at the same command
def read_command(command: str) -> CommandLine:
    """Read a command. Never raises: what no shell can run is said in ``broken``."""
    if "\0" in command:
        return CommandLine(broken="it holds a NUL character")
    if len(command) > LONGEST:
        return CommandLine(broken=f"it has more than {LONGEST:,} characters")
    reader = _ShellReader(command)
    try:
        reader.read()
        reader.end()
    except _BrokenError as e:
        reader.give_up()
        return reader.line(str(e))
    return reader.line("" if reader.words else "it is empty")


class _BrokenError(Exception):
    pass


@dataclass(slots=True)
class _Draft:
    """A word that is being read."""

    start: int
    text: list[str] = field(default_factory=list)
    shape: list[str] = field(default_factory=list)
    wild: bool = False
    quoted: bool = False
    opened: dict[str, int] = field(default_factory=dict)  # [ or { -> where in the shape

    def add(self, text: str, shape: str | None = None) -> None:
        self.text.append(text)
        self.shape.append(text if shape is None else shape)


class _ShellReader:
    def __init__(self, text: str, depth: int = 0) -> None:
        self.text, self._depth = text, depth
        self.words: list[Word] = []
        self.operators: list[Operator] = []
        self.parts: list[tuple[Word, ...]] = []
        self.files: list[Word] = []
        self.texts: list[str] = []
        self._at = 0
        self._cuts: list[int] = []  # where a backslash and a line break were taken out of a sign
        self._draft: _Draft | None = None
        self._part: list[Word] = []
        self._joined: list[Word] = []  # the part before this one, where a shell may take both for one
        self._redirection = ""  # that still has no file
        self._documents: list[tuple[str, bool, bool]] = []  # that begin on the next line: end, tabs stripped, literal
        self._last = "start"  # what came before: start, word or a separator

    def line(self, broken: str) -> CommandLine:
        words, operators = sorted(self.words, key=lambda w: w.start), sorted(self.operators, key=lambda o: o.start)
        parts, files, texts = tuple(self.parts), tuple(self.files), tuple(self.texts)
        return CommandLine(tuple(words), tuple(operators), parts, files, texts, broken)

    def read(self, until: str = "") -> None:
        """Read commands up to a sign, or to the end."""
        groups = 0
        while self._at < len(self.text):
            char = self.text[self._at]
            if char == until and groups == 0:
                return
            if char in "()":
                groups += 1 if char == "(" else -(groups > 0)
            self._step(char)
        if until:
            raise _BrokenError("a command substitution does not end")

    def read_document(self) -> None:
        """Read all of it as a here-document, in which only expansions count: as an argument of a command that does nothing."""
        self._part.append(Word(":", 0, 0, shape=":"))
        draft = self._word()
        while self._at < len(self.text):
            self._expand(self.text[self._at], draft, "$`\\\n")

    def _step(self, char: str) -> None:
        if char in " \t\r":
            self.end_word()
            self._at += 1
        elif char == "\n":
            self._new_line()
        elif char == "#" and self._draft is None:
            end = self.text.find("\n", self._at)
            self._operator("a comment", (end if end >= 0 else len(self.text)) - self._at)
        elif char in "<>":
            self._redirect(char)
        elif char in "|&;":
            self._separate()
        elif char in "()":
            self.end_word()
            self.end_part()
            self._operator("a subshell", 1)
            self._last = "start" if char == "(" else "word"
        else:
            self._in_word(char)

    def _in_word(self, char: str) -> None:
        if char == "'":
            self._word().quoted = True
            self._single()
        elif char == '"':
            self._double()
        elif char == "\\":
            self._escape()
        elif char == "`":
            self._backticks()
        elif char == "$":
            self._dollar(quoted=False)
        else:
            draft = self._word()
            wild = char in _WILD
            draft.wild |= wild
            if char in "[{":
                draft.opened[char] = len(draft.shape)
            draft.add(char, UNKNOWN if wild and char != "[" else None)
            if char in "]}":
                self._bracketed(draft, "[" if char == "]" else "{")
            self._at += 1

    def _bracketed(self, draft: _Draft, opening: str) -> None:
        """What stands between brackets is one of several, and so may be what stands between braces."""
        since = draft.opened.pop(opening, None)
        if since is not None and (opening == "[" or _BRACES.search("".join(draft.shape[since:]))):
            draft.shape[since:] = [UNKNOWN]

    # Words.

    def _word(self) -> _Draft:
        if self._draft is None:
            self._draft = _Draft(self._at)
        return self._draft

    def end_word(self) -> None:
        draft, self._draft = self._draft, None
        if draft is None:
            return
        start, end = self._start(draft.start), self._end(self._at)
        word = Word("".join(draft.text), start, end, draft.wild, "".join(draft.shape))
        self.words.append(word)
        if self._redirection:
            if self._redirection.startswith("<<") and self._redirection != "<<<":
                self._documents.append((word.text, self._redirection == "<<-", draft.quoted))
            elif self._redirection == "<<<":
                self.texts.append(word.text)
            self.files.append(word)
            self._redirection = ""
        else:
            self._part.append(word)
        self._last = "word"

    def end_part(self) -> None:
        if self._part:
            self.parts.append(tuple(self._part))
            if self._joined:
                self.parts.append((*self._joined, *self._part))
        self._part, self._joined = [], []
        if self._redirection:
            raise _BrokenError("a redirection names no file")

    def give_up(self) -> None:
        """Keep what was read so far."""
        self._at = min(self._at, len(self.text))
        self.end_word()
        self._redirection = ""
        self.end_part()

    def end(self) -> None:
        """The end of the whole line."""
        self.end_word()
        self.end_part()
        if self._last in ("|", "||", "&&", "|&"):
            raise _BrokenError(f"nothing follows {self._last}")

    # Operators.

    def _operator(self, what: str, length: int) -> None:
        self._name(what, length)
        self._at += length

    def _name(self, what: str, length: int) -> None:
        self.operators.append(Operator(self._start(self._at), self._end(self._at + length), what))

    def _start(self, at: int) -> int:
        """Where what begins here begins in the command as it was written."""
        return at + 2 * bisect_right(self._cuts, at)

    def _end(self, at: int) -> int:
        return at + 2 * bisect_left(self._cuts, at)

    def _join(self) -> None:
        """Make a sign whole that goes on in the next line."""
        while found := _GOES_ON.match(self.text, self._at):
            cut = found.end() - 2
            self.operators.append(Operator(self._start(cut), self._start(cut) + 2, "a line that goes on"))
            self.text = self.text[:cut] + self.text[found.end() :]
            self._cuts.append(cut)

    def _separate(self) -> None:
        self.end_word()
        self._join()
        found = _SEPARATOR.match(self.text, self._at)
        assert found is not None
        sign = found[0]
        part = list(self._part)
        self.end_part()
        if self._last != "word" and not sign.startswith(";;") and sign != ";&":
            raise _BrokenError(f"nothing stands before {sign}")
        self._operator(_SEPARATORS.get(sign, "a second command"), len(sign))
        if sign == "&" and self.text.startswith(">", self._at):  # a background job or, for bash, a redirection
            self._joined = part
        self._last = sign

    def _new_line(self) -> None:
        self.end_word()
        self.end_part()
        self._operator("a second line", 1)
        for delimiter, tabs, literal in self._documents:
            self._document(delimiter, tabs, literal)
        self._documents.clear()

    def _document(self, delimiter: str, tabs: bool, literal: bool) -> None:
        start = self._at
        body: list[str] = []
        while self._at < len(self.text):
            found = (_LINE if literal else _LINES).match(self.text, self._at)
            assert found is not None
            line, self._at = found[0], found.end() + 1
            if (line.lstrip("\t") if tabs else line) == delimiter:
                break
            if not literal and "\\\n" in line and line.replace("\\\n", "").lstrip("\t") == delimiter:
                raise _BrokenError("shells differ in where its here-document ends")
            body.append(line)
        self._at = min(self._at, len(self.text))
        self.texts.append("\n".join(body))
        if not literal:  # its substitutions are run
            self._within("\n".join(body), start, document=True)

    def _redirect(self, char: str) -> None:
        self._join()
        if self.text.startswith(char + "(", self._at):
            self._substitute()
            return
        if self._draft is not None and not self._draft.quoted and _DESCRIPTOR.fullmatch("".join(self._draft.text)):
            self._draft = None
        self.end_word()
        if self._redirection:
            raise _BrokenError("a redirection names no file")
        found = _REDIRECTION.match(self.text, self._at)
        assert found is not None
        self._operator("a redirection", len(found[0]))
        self._redirection = found[0]

    # Expansions and quotes.

    def _dollar(self, quoted: bool) -> None:
        self._join()
        rest = self.text[self._at + 1 : self._at + 2]
        if rest == "(":
            self._substitute()
        elif rest == "{":
            self._parameter(quoted)
        elif rest == "'" and not quoted:
            self._ansi()
        elif rest == '"' and not quoted:
            self._name("a shell's own quotes", 2)
            self._at += 1
        elif found := _VARIABLE.match(self.text, self._at):
            self._word().add(found[0], UNKNOWN)
            self._operator("a variable", len(found[0]))
        else:
            self._word().add("$")
            self._at += 1

    def _substitute(self) -> None:
        """``$(...)``, ``<(...)`` and ``>(...)``: commands within a word."""
        draft, start = self._word(), self._at
        self._operator("a command substitution", 2)
        kept = self._part, self._joined, self._redirection, self._last
        self._draft, self._part, self._joined, self._redirection, self._last = None, [], [], "", "start"
        self._deeper()
        self.read(")")
        self.end_word()
        self.end_part()
        self._depth -= 1
        self._at += 1
        self._draft, (self._part, self._joined, self._redirection, self._last) = draft, kept
        draft.add(self.text[start : self._at], UNKNOWN)

    def _deeper(self) -> None:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise _BrokenError("too many commands stand within each other")

    def _backticks(self) -> None:
        end = closing(self.text, self._at + 1, "`")
        if end < 0:
            raise _BrokenError("a command substitution does not end")
        raw = self.text[self._at + 1 : end]
        self._word().add(f"`{raw}`", UNKNOWN)
        self._name("a command substitution", 1)
        self._within(re.sub(r"\\([\\`$\"])", r"\1", raw), self._at + 1)
        self._at = end + 1

    def _within(self, text: str, start: int, *, document: bool = False) -> None:
        """Commands whose text is not a piece of this one's, letter by letter."""
        inner = _ShellReader(text, self._depth)
        inner._deeper()
        if document:
            inner.read_document()
        else:
            inner.read()
        inner.end()
        most = len(self.text)
        for part in inner.parts:
            places = ((self._start(min(start + w.start, most)), self._end(min(start + w.end, most))) for w in part)
            moved = (Word(w.text, *place, w.wild, w.shape) for w, place in zip(part, places, strict=True))
            self.parts.append(tuple(moved))
            self.words += self.parts[-1]
        self.texts += inner.texts

    def _parameter(self, quoted: bool) -> None:
        """``${name...}``, where substitutions may stand in what follows the name."""
        draft, start = self._word(), self._at
        quotes = '"' if quoted and not _PATTERN.match(self.text, start) else "'\""
        self._operator("a variable", 2)
        self._deeper()
        quote = ""
        while self._at < len(self.text) and (quote or self.text[self._at] != "}"):
            char = self.text[self._at]
            if char == "\\" and quote != "'":
                self._at += 2
            elif char == quote:
                quote, self._at = "", self._at + 1
            elif not quote and char in quotes:
                quote, self._at = char, self._at + 1
            elif quote != "'" and char == "$" and _GOES_ON.match(self.text, self._at):
                self._join()
            elif quote != "'" and (char == "`" or self.text.startswith("$(", self._at) or self.text.startswith("${", self._at)):
                self._draft = None
                if char == "`":
                    self._backticks()
                else:
                    self._dollar(quoted=quoted or quote == '"')
                self._draft = draft
            else:
                self._at += 1
        if self._at >= len(self.text):
            raise _BrokenError("a variable's brace does not end")
        self._depth -= 1
        self._at += 1
        draft.add(self.text[start : self._at], UNKNOWN)

    def _ansi(self) -> None:
        """``$'...'``: some shells read its escapes."""
        end = closing(self.text, self._at + 2, "'")
        if end < 0:
            raise _BrokenError("a quote does not end")
        raw = self.text[self._at + 2 : end]
        try:
            text = codecs.decode(raw.encode("ascii", "backslashreplace"), "unicode_escape").replace("\0", "")
        except (UnicodeError, ValueError):
            text = ""
        self._word().add(text or raw, None if text else UNKNOWN)
        self._operator("a shell's own quotes", end + 1 - self._at)

    def _single(self) -> None:
        end = self.text.find("'", self._at + 1)
        if end < 0:
            raise _BrokenError("a quote does not end")
        self._word().add(self.text[self._at + 1 : end])
        self._at = end + 1

    def _double(self) -> None:
        draft = self._word()
        draft.quoted = True
        draft.add("")
        self._at += 1
        while self._at < len(self.text):
            char = self.text[self._at]
            if char == '"':
                self._at += 1
                return
            self._expand(char, draft, '$`"\\\n')
        raise _BrokenError("a quote does not end")

    def _expand(self, char: str, draft: _Draft, escaped: str) -> None:
        """A character where no quote but the double one means anything."""
        if char == "\\" and self.text[self._at + 1 : self._at + 2] in tuple(escaped):
            self._escape()
        elif char == "`":
            self._backticks()
        elif char == "$":
            self._dollar(quoted=True)
        else:
            draft.add(char)
            self._at += 1

    def _escape(self) -> None:
        following = self.text[self._at + 1 : self._at + 2]
        if not following:
            raise _BrokenError("it ends in a backslash")
        if following == "\n":
            self._operator("a line that goes on", 2)
            return
        draft = self._word()
        draft.quoted = True
        draft.add(following)
        self._at += 2
