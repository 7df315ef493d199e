"""Whether a command could be one that a rule denies, however it is spelled.

It is read widely: a program counts behind whatever may start it, in a shell's text, in a program's text, in a substitution;
its options count in any order, together or apart, short or long; and what only a shell would know counts as whatever the rule
speaks of. What a program computes cannot be seen here.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from agent.approval.arguments import git_runs_nothing
from agent.approval.programs import CHANGERS, CLOSING, READERS, SHELLS, WRAPPERS, base_name, family, starts
from agent.text.command_line import read_command
from agent.text.shell_words import UNKNOWN, CommandLine, Word, is_assignment

# That are looked into; where there are more, it could be anything.
_TEXTS = 300
_WORDS = 3000
_LETTERS = 300  # of a command with something unknown in it
_FED = frozenset({"xargs", "parallel"})  # they add words of their own
_INNER = re.compile(r"[\s;&|()<>`$'\"\\=,:!\[\]{}]")  # a word with one of these may hold a command
_LOOSE = re.compile(r"[^\s;&|()<>`$'\"\\=,!\[\]{}]+")


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# What `git` itself knows; any other subcommand is an alias, which may stand for anything.
_GIT = _names(
    "add am annotate apply archive bisect blame branch bundle cat-file check-attr check-ignore check-mailmap "
    "check-ref-format checkout checkout-index cherry cherry-pick clean clone column commit commit-graph commit-tree config "
    "count-objects credential daemon describe diff diff-files diff-index diff-tree difftool fast-export fast-import fetch "
    "fetch-pack filter-branch fmt-merge-msg for-each-ref for-each-repo format-patch fsck gc get-tar-commit-id grep gui "
    "hash-object help hook index-pack init instaweb interpret-trailers log ls-files ls-remote ls-tree mailinfo mailsplit "
    "maintenance merge merge-base merge-file merge-index merge-tree mergetool mktag mktree multi-pack-index mv name-rev "
    "notes pack-objects pack-refs patch-id prune prune-packed pull push range-diff read-tree rebase reflog remote repack "
    "replace request-pull rerere reset restore rev-list rev-parse revert rm send-email send-pack shortlog show show-branch "
    "show-index show-ref sparse-checkout stage stash status stripspace submodule svn switch symbolic-ref tag unpack-file "
    "unpack-objects update-index update-ref var verify-commit verify-pack verify-tag version whatchanged worktree "
    "write-tree"
)
_FINDING = _FED | {"find", "fd"}
# Variables that begin with a slash, unless a line speaks of them otherwise: as a program's folder they hide no words.
_FOLDER = re.compile(r"\$(?:HOME|PWD|VIRTUAL_ENV|\{(?:HOME|PWD|VIRTUAL_ENV)\})/")
_SPOKEN_OF = re.compile(r"(?<![$\w{])(?:HOME|PWD|VIRTUAL_ENV)\b|(?<!\$)\{(?:HOME|PWD|VIRTUAL_ENV)\b")


def mentions(line: CommandLine, wanted: Sequence[str]) -> bool:
    """Whether any command in a line could be ``wanted``: a program, and words that stand with it."""
    return bool(wanted) and _Search(wanted, not any(_SPOKEN_OF.search(word.text) for word in line.words)).line(line)


class _Search:
    """Looks for a command in a line, in the texts within it, in the texts within those."""

    def __init__(self, wanted: Sequence[str], folders: bool = False) -> None:
        """``folders``: a program's folder may be named by a variable that always is one."""
        self._wanted, self._folders = wanted, folders
        self._seen: set[tuple[str, bool]] = set()

    def line(self, line: CommandLine, surely: bool = True) -> bool:
        """Whether a line holds it. ``surely``: somebody runs the line, so that what is unknown in it may be any program."""
        if line.broken:  # no shell runs it, but a part of it may be meant, or it was not even read
            return not (line.words or line.operators) or any(self._loosely(word.text) for word in line.words)
        if any(map(_reads_commands, line.parts)):
            return True
        runs = any(map(_may_run, line.parts))
        if any(self._part(part, runs, surely) for part in line.parts):
            return True
        return runs and (self._texts(line) or self._renamed(line))

    def _texts(self, line: CommandLine) -> bool:
        """Whether a text that some program of a line gets holds it."""
        given = [(text, _runs_its_words(part)) for part in line.parts for word in part for text in _texts(word.text)]
        return any(self._text(text, surely) for text, surely in (*given, *((text, False) for text in line.texts)))

    def _renamed(self, line: CommandLine) -> bool:
        """Whether a line gives the program another name."""
        if all(part[0].text != "alias" for part in line.parts):
            return False
        program = _Search(self._wanted[:1])
        return any(program._loosely(word.text) for word in line.words)

    def _part(self, part: Sequence[Word], runs: bool, surely: bool) -> bool:
        if runs and len(part) > _WORDS:
            return True
        places = starts(part)
        if _programs(part) & _FED:
            part = [*part, replace(part[-1], text="", wild=False, shape=UNKNOWN)]
        unknown = any(UNKNOWN in word.shape for word in part)
        for i in range(len(part)) if runs else places:
            if unknown and _could_spell(part[i : i + 50], self._wanted, surely and i in places, self._folders):
                return True
            if _begins(part, i, self._wanted, i in places):
                return True
        return False

    def _text(self, text: str, surely: bool) -> bool:
        """Whether a text that some program gets could be run, and be what is wanted."""
        if (text, surely) in self._seen or not text.strip():
            return False
        self._seen.add((text, surely))
        return len(self._seen) > _TEXTS or self._loosely(text) or self.line(read_command(text), surely)

    def _loosely(self, text: str) -> bool:
        """Whether the words of a text, whatever stands between them, hold what is wanted: for another language's text."""
        words = [Word(found[0], *found.span(), shape=found[0]) for found in _LOOSE.finditer(text)]
        places = [i for i, word in enumerate(words) if _is_program(word, self._wanted[0])]
        return len(places) > _TEXTS or any(_begins(words, i, self._wanted, False) for i in places)


def _texts(text: str) -> Iterator[str]:
    """What in a word may be a command of its own."""
    if not _INNER.search(text):
        return
    yield text
    _, sign, value = text.partition("=")
    if sign and value:
        yield value.lstrip("!")
    if re.match(r"-[A-Za-z]", text):
        yield text[2:]
    if text[:1] in "!+:":
        yield text.lstrip("!+:")


def _programs(part: Sequence[Word]) -> frozenset[str]:
    """The programs that a simple command surely starts."""
    return frozenset(base_name(part[i].text) for i in starts(part))


def _runs_its_words(part: Sequence[Word]) -> bool:
    """Whether a simple command surely runs some of its words."""
    return bool(_programs(part) & (SHELLS | set(WRAPPERS)))


def _may_run(part: Sequence[Word]) -> bool:
    """Whether a simple command may run what its words say, beside the program that they begin with."""
    places = starts(part)
    if not places or part[places[0]].text in CLOSING:
        return False
    name, rest = base_name(part[places[0]].text), [word.text for word in part[places[0] + 1 :]]
    if any(is_assignment(word) for word in part[: places[0]]):
        return True
    if name in READERS or (name in CHANGERS and not any(word.startswith("--") and word != "--" for word in rest)):
        return False
    return name != "git" or not git_runs_nothing(["git", *rest])


def _reads_commands(part: Sequence[Word]) -> bool:
    """Whether a shell gets its commands from somewhere else: from its input, from what another program found."""
    places = starts(part)
    names = _programs(part)
    for i, word in enumerate(part):
        if base_name(word.text) in SHELLS and (i in places or names & _FINDING):
            rest = [w.text for w in part[i + 1 :]]
            fed = names & _FED or (names & _FINDING and any("{}" in text for text in rest))
            if fed or (rest not in (["--version"], ["--help"]) and all(w.startswith(("-", "/dev/", "/proc/")) for w in rest)):
                return True
    return False


# One command.


def _begins(part: Sequence[Word], at: int, wanted: Sequence[str], surely: bool) -> bool:
    """Whether a simple command could be ``wanted`` from one of its words on. ``surely``: a program stands there."""
    program, words = part[at], part[at + 1 :]
    own = base_name(wanted[0]) if surely else ""
    if _is_program(program, wanted[0]):
        return _has(words, wanted[1:], own)
    if UNKNOWN in program.shape and _fits(base_name(program.shape), base_name(wanted[0])):
        known = words if surely else [word for word in words if word.shape.strip(UNKNOWN)]
        return (surely or len(wanted) > 1) and _has(known, wanted[1:], "")
    # git-push is git push
    dashed = surely and base_name(program.text) == "-".join(map(base_name, wanted[:2]))
    return dashed and _has(words, wanted[2:], "")


def _is_program(word: Word, wanted: str) -> bool:
    names = {base_name(word.shape), family(word.shape)}
    return UNKNOWN not in word.shape and any(fnmatch.fnmatchcase(name, base_name(wanted)) for name in names)


def _has(words: Sequence[Word], wanted: Sequence[str], program: str) -> bool:
    """Whether the arguments of a command hold those that are wanted: the options anywhere, the others in their order."""
    options = [w for w in wanted if w.startswith("-") and w != "-"]
    return all(_has_option(words, option) for option in options) and _has_operands(
        words, [w for w in wanted if w not in options], program
    )


def _has_operands(words: Sequence[Word], wanted: Sequence[str], program: str) -> bool:
    at, first = 0, True
    for operand in wanted:
        while at < len(words) and not _is(words[at], operand):
            if not _may_be_left_out(words, at):
                return first and _is_alias(words[at].text, program)
            at += 1
        if at >= len(words):
            return False
        at, first = at + 1, False
    return True


def _is_alias(word: str, program: str) -> bool:
    """Whether a subcommand is none of the program's own, so that a configuration says what it is."""
    return program == "git" and word not in _GIT and re.fullmatch(r"[\w-]+", word) is not None


def _may_be_left_out(words: Sequence[Word], at: int) -> bool:
    """Whether a word may be an option, the value of one, or nothing at all."""
    before = words[at - 1].text if at else ""
    return words[at].shape.startswith(("-", UNKNOWN)) or (before.startswith("-") and "=" not in before and before != "--")


def _is(word: Word, wanted: str) -> bool:
    text = word.text
    attached = text.startswith("-") and wanted in (text[2:], text.partition("=")[2])
    return attached or fnmatch.fnmatchcase(text, wanted) or (UNKNOWN in word.shape and _fits(word.shape, wanted))


def _has_option(words: Sequence[Word], wanted: str) -> bool:
    """Whether an option is there: itself, abbreviated, among others, or as what is probably its other name."""
    name = wanted.partition("=")[0]
    if name.startswith("--"):
        return any(_is_long(word.text, wanted, name) or (not word.wild and word.shape.startswith(UNKNOWN)) for word in words)
    found: set[str] = set()
    for word in words:
        text = word.text
        if fnmatch.fnmatchcase(text, wanted) or (not word.wild and word.shape.startswith(UNKNOWN)):
            return True
        if text.startswith("--"):
            found |= {text[2:3].lower(), text[2:3].upper()}
        elif text.startswith("-"):
            found |= set(text[1:])
    return set(name[1:]) <= (found | {c.swapcase() for c in found if c in "rR"})


def _is_long(text: str, wanted: str, name: str) -> bool:
    if text.startswith("--"):
        given, sign, value = text.partition("=")
        same = len(given) > 2 and (name.startswith(given) or fnmatch.fnmatchcase(given, name))
        return same and ("=" not in wanted or not sign or fnmatch.fnmatchcase(value, wanted.partition("=")[2]))
    return re.match(r"-[A-Za-z]", text) is not None and name[2:3] in text[1:].lower()


# What only a shell would know.


def _fits(shape: str, wanted: str) -> bool:
    if any(c in wanted for c in "*?["):
        return True
    return re.fullmatch(".*".join(map(re.escape, re.split(f"{UNKNOWN}+", shape))), wanted, re.DOTALL) is not None


def _could_spell(part: Sequence[Word], wanted: Sequence[str], surely: bool, folders: bool) -> bool:
    """Whether unknown text could make a command begin with ``wanted``; unless a program stands there ``surely``, not by
    unknown text alone."""
    if any(c in word for word in wanted for c in "*?["):
        wanted = [re.split(r"[*?[]", wanted[0])[0]]
    options = any(word.startswith("-") for word in wanted)  # names of files are none
    phrase = " ".join([base_name(wanted[0]), *wanted[1:]])
    shape = " ".join(word.text if options and word.wild else word.shape for word in part)
    program = shape.partition(" ")[0]
    starts_at = {program.rfind("/") + 1}  # behind the program's folders
    at = program.find(UNKNOWN)
    if (at == 0 or "/" in program[: max(0, at)]) and not (folders and _FOLDER.match(part[0].text)):
        starts_at.add(at)  # a shell makes several words of it, or the folders end within it
    return any(_spells(shape[start:][:_LETTERS], phrase, surely) for start in starts_at)


def _spells(shape: str, phrase: str, surely: bool) -> bool:
    """Whether a shape can become a text that begins with a phrase. States are places in the phrase, with whether one of its
    letters was really there."""
    states = {(0, surely)}
    for char in [*shape, " "]:
        if char == " " and (len(phrase), True) in states:
            return True
        after: set[tuple[int, bool]] = set()
        for at, known in states:
            if char == UNKNOWN:
                after |= {(i, known) for i in range(at, len(phrase) + 1)}
            elif at < len(phrase) and phrase[at] == char:
                after.add((at + 1, known or char != " "))
        if char == UNKNOWN and (len(phrase), True) in after:
            return True
        if not after:
            return False
        states = after
    return False
