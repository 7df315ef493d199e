"""A command is split as a shell would, and what only a shell could do is found and stands where it was said to stand."""

from __future__ import annotations

import random
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.text.command_line import LONGEST, read_command
from agent.text.shell_words import UNKNOWN, is_assignment
from tests.fixtures.generated import runs


def parts(line: str) -> list[str]:
    """Each simple command, its words as they may be: ? for what only a shell would know, _ for a blank in a word."""
    return [
        " ".join(word.shape.replace(" ", "_").replace(UNKNOWN, "?") or "''" for word in part) for part in read_command(line).parts
    ]


def signs(line: str) -> list[tuple[str, str]]:
    """What only a shell could do: how it is written and what it is called."""
    return [(line[o.start : o.end], o.what) for o in read_command(line).operators]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("ls -la 'a b' \"c d\" e\\ f", ["ls -la a_b c_d e_f"]), ("a\tb\rc  d ", ["a b c d"]), ("''", ["''"]),
        ('a ""', ["a ''"]),
        ("'a'\"b\"c\\d", ["abcd"]), ("\"a\\$b\\`c\\\"d\\\\e\\f\\\ng\"", ["a$b`c\"d\\e\\fg"]), ("'a\\'b", ["a\\b"]),
        ("a\\\nb c", ["ab c"]), ("a \\\n b", ["a b"]), ("a#b '#c' #d e", ["a#b #c"]), ("#a\nb # c\nd", ["b", "d"]),
        ("a;b", ["a", "b"]), ("a&&b||c", ["a", "b", "c"]), ("a|b|&c&d", ["a", "b", "c", "d"]), ("a\n\nb\n", ["a", "b"]),
        ("case x in a) b;; c) d;& e) f;;& esac", ["case x in a", "b", "c", "d", "e", "f", "esac"]),
        ("(a;b)|{ c; }", ["a", "b", "{ c", "}"]), ("f() { a; }", ["f", "{ a", "}"]), ("((a) b)", ["a", "b"]),
        ("a >b", ["a"]), (">b a", ["a"]), ("a 2>&1 12>b {x}<c d", ["a d"]), ("a1>b '2'>c", ["a1 2"]),
        ("a >|b <>c >>d <&3 >&4 e", ["a e"]),
        ("a &>x b", ["a", "b", "a b"]), ("a & >x b", ["a", "b"]), ("a &>>x b; c", ["a", "b", "a b", "c"]),
        ("a;>x b", ["a", "b"]),
        ("$x ${x} $1 $@ $* $# $? $$ $! $- $_", ["? ? ? ? ? ? ? ? ? ? ?"]),
        ("a$ $ $. $x.y $xy-z $12", ["a$ $ $. ?.y ?-z ?2"]),
        ('"$x" \'$x\' \\$x "\\$x"', ["? $x $x $x"]), ('"a$x b"', ["a?_b"]), ("\"$'a'\" \"$\"b\"\"", ["$'a' $b"]),
        ("$'a\\tb\\x41\\'c' $\"a $x\"", ["a\tbA'c a_?"]), ("$'' b", ["? b"]), ("$'\\0'", ["?"]), ("$'\\x'", ["?"]),
        ("$'é'", ["é"]),
        ("a* b? [ab]c x[a-z]y", ["a? b? ?c x?y"]), ("'*' \\* \"?[a]\"", ["* * ?[a]"]), ("a[b a]b []", ["a[b a]b ?"]),
        ("{a,b}c {1..3} {a} {a,b a,b} {}", ["?c ? {a} {a,b a,b} {}"]), ("a{b,'c d'}e {a,$x}", ["a?e ?"]),
        ("'{a,b}' \\{a,b}", ["{a,b} {a,b}"]),
        ("a $(b c)d", ["b c", "a ?d"]), ("a $(b $(c d) e) f", ["c d", "b ? e", "a ? f"]),
        ("a \"x $(b \"c d\") y\"", ["b c_d", "a x_?_y"]),
        ("a $(b;c) $(d|e)", ["b", "c", "d", "e", "a ? ?"]), ("a $( (b) ) c", ["b", "a ? c"]),
        ("a $(b & >x c) d", ["b", "c", "a ? d"]),
        ("a <(b c) >(d)", ["b c", "d", "a ? ?"]), ("a >f$(b)", ["b", "a"]), ("a >f $(b) c", ["b", "a ? c"]),
        ("a $(b >f) c", ["b", "a ? c"]),
        ("a `b c`d", ["b c", "a ?d"]), ("a `b \\`c d\\``", ["c d", "b ?", "a ?"]), ("\"a `b 'c d'`\"", ["b c_d", "a_?"]),
        ("`b \\$x \\\\d`", ["b ? d", "?"]),
        ("a ${x:-$(b c)} d", ["b c", "a ? d"]), ("a ${x:-`b c`}", ["b c", "a ?"]), ("a ${x:-${y:-$(b)}}", ["b", "a ?"]),
        ("a ${x:-'}'} ${x:-\"}\"} ${x:-\\}} b", ["a ? ? ? b"]),
        ("a ${x:-'$(b)'} ${x:-\"$(c)\"} ${x:-\\$(d)}", ["c", "a ? ? ?"]),
        ("a \"${x:-'}\"; b \"${x-'}\"", ["a ?", "b ?"]), ("a \"${x#'}'}\" \"${x%%'}'}\" b", ["a ? ? b"]),
        ("${x#*;} a", ["? a"]), ("a ${x:-\"$(b)}\"} ${y-\"'\"}", ["b", "a ? ?"]),
        ("a \"$\\\n(b c)\" $\\\n\\\n(d) $x\\\ny", ["b c", "d", "a ? ? ?"]),
        ("a \"${x:-$\\\n(b)}\" $\\\n{x-$\\\n{y}}", ["b", "a ? ?"]),
        ("a &\\\n& b |\\\n| c ;\\\n d", ["a", "b", "c", "d"]), ("a >\\\n&1 2>\\\n\\\n>b <\\\n(c)", ["c", "a ?"]),
        ("a '$\\\n(b)' \\$\\\n(c)", ["a $\\\n(b) $", "c"]),
        ("a ${x:-\"${y:-'}\"} \"${x:-${y-'}}\" b", ["a ? ? b"]), ("a $'b' c $'d' e", ["a b c d e"]),
        ("${x:-a(b} c ${x-{a}", ["? c ?"]), ("x=1 y+=2 a", ["x=1 y+=2 a"]), ("x=$(a) b", ["a", "x=? b"]),
        ("for i in *; do a $i; done", ["for i in ?", "do a ?", "done"]),
    ],
)  # fmt: skip
def test_every_command_of_a_line_is_found_with_its_words(line: str, said: list[str]) -> None:
    command = read_command(line)
    assert command.broken == ""
    assert parts(line) == said
    assert {word for part in command.parts for word in part} <= set(command.words)


@pytest.mark.parametrize(
    ("line", "said", "texts", "files"),
    [
        ("cat <<E >g\nx $(a b) y\nE\nwc", ["cat", "a b", ": x_?_y", "wc"], ["x $(a b) y"], ["E", "g"]),
        ("cat <<'E'\n$(a)\nE\nwc", ["cat", "wc"], ["$(a)"], ["E"]), ("cat <<\\E\n`a`\nE", ["cat"], ["`a`"], ["E"]),
        ("cat <<\"E F\"\n$(a)\nE F\n", ["cat"], ["$(a)"], ["E F"]), ("cat <<E''F\n$(a)\nEF\n", ["cat"], ["$(a)"], ["EF"]),
        ("cat <<-E\n\ta $x\n\t\tE\nwc", ["cat", ": \ta_?", "wc"], ["\ta $x"], ["E"]),
        ("cat <<E\n\tE\nE\n", ["cat", ": \tE"], ["\tE"], ["E"]), ("cat <<-E\n E\nE\n", ["cat", ": _E"], [" E"], ["E"]),
        ("cat <<A <<'B'\n1\nA\n2\nB\nwc", ["cat", ": 1", "wc"], ["1", "2"], ["A", "B"]),
        ("cat <<E\na", ["cat", ": a"], ["a"], ["E"]), ("cat <<E\n", ["cat", ": ''"], [""], ["E"]),
        ("cat <<E", ["cat"], [], ["E"]),
        ("cat <<E\n\"'\\$(a) \\\n\\\\ \\\" \\`\nE", ["cat", ": \"'$(a)_\\_\\\"_`"], ["\"'\\$(a) \\\n\\\\ \\\" \\`"], ["E"]),
        ("cat <<E\n\"$(\"a b\" 'c') `\"d e\"`\nE", ["cat", "a_b c", "d_e", ": \"?_?"], ["\"$(\"a b\" 'c') `\"d e\"`"], ["E"]),
        ("cat <<E\nx\\", ["cat", ": x\\"], ["x\\"], ["E"]),
        ("cat <<E; wc\nx\nE\nls", ["cat", "wc", ": x", "ls"], ["x"], ["E"]),
        ("cat <<E\na\\\nE\n'\nE\nwc", ["cat", ": aE\n'", "wc"], ["a\\\nE\n'"], ["E"]),
        ("cat <<'E'\na\\\nE\nwc", ["cat", "wc"], ["a\\"], ["E"]),
        ("cat <<E\na\\\\\nE\nwc", ["cat", ": a\\", "wc"], ["a\\\\"], ["E"]),
        ("cat <\\\n<\\\n-E\n\t$\\\n(a)\n\tE\nwc", ["cat", "a", ": \t?", "wc"], ["\t$\\\n(a)"], ["E"]),
        ("cat <<<'a b' c", ["cat c"], ["a b"], ["a b"]), ("cat <<<$x", ["cat"], ["$x"], ["$x"]),
        ("a $(cat <<E\nx\nE\n) b", ["cat", ": x", "a ? b"], ["x"], ["E"]), ("`cat <<<y`", ["cat", "?"], ["y"], []),
    ],
)  # fmt: skip
def test_texts_within_a_command_and_files_are_found(line: str, said: list[str], texts: list[str], files: list[str]) -> None:
    command = read_command(line)
    assert command.broken == ""
    assert (parts(line), list(command.texts), [word.text for word in command.files]) == (said, texts, files)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("a|b|&c", [("|", "a pipe"), ("|&", "a pipe")]), ("a&", [("&", "a background job")]),
        ("a;b&&c||d", [(";", "a second command"), ("&&", "a second command"), ("||", "a second command")]),
        ("a\nb", [("\n", "a second line")]), ("a # b", [("# b", "a comment")]), ("#b\na", [("#b", "a comment"),
        ("\n", "a second line")]),
        ("a <b >c >>d >|e <>f <&3 >&4", [(sign, "a redirection") for sign in ("<", ">", ">>", ">|", "<>", "<&", ">&")]),
        ("a <<E <<-F <<<g", [(sign, "a redirection") for sign in ("<<", "<<-", "<<<")]), ("a 2>b", [(">", "a redirection")]),
        ("(a)", [("(", "a subshell"), (")", "a subshell")]), ("a \\\nb", [("\\\n", "a line that goes on")]),
        ("$x \"$y\" ${z}", [("$x", "a variable"), ("$y", "a variable"), ("${", "a variable")]), ("$ a$ \\$x '$x'", []),
        ("$(a) `b` <(c)", [("$(", "a command substitution"), ("`", "a command substitution"),
        ("<(", "a command substitution")]),
        ("$\\\n(a) &\\\n& b", [
            ("$\\\n(", "a command substitution"), ("\\\n", "a line that goes on"),
            ("&\\\n&", "a second command"), ("\\\n", "a line that goes on"),
        ]),
        ("$'a' $\"b\"", [("$'a'", "a shell's own quotes"), ('$"', "a shell's own quotes")]), ("a '|' \\; \"&\"", []),
    ],
)  # fmt: skip
def test_what_only_a_shell_could_do_is_named_where_it_stands(line: str, said: list[tuple[str, str]]) -> None:
    assert signs(line) == said


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("ls 'x", "a quote does not end"), ('ls "x', "a quote does not end"), ("ls $'x", "a quote does not end"),
        ("ls $'x\\'", "a quote does"),
        ("", "empty"), (" \t", "empty"), ("# ls", "empty"), ("ls\0", "NUL"), ("ls \\", "backslash"),
        ('ls "\\', "a quote does not end"),
        ("ls |", "nothing follows |"), ("ls |\n", "nothing follows |"), ("ls &&", "nothing follows &&"),
        ("ls ||", "follows ||"), ("ls |&", "follows |&"),
        ("| ls", "nothing stands before |"), ("ls ; ; ls", "nothing stands before ;"),
        ("ls & & ls", "nothing stands before &"), ("(;ls)", "before ;"),
        ("ls >", "names no file"), ("ls > | wc", "names no file"), ("ls > > x", "names no file"),
        ("ls >\nx", "names no file"), ("ls >)", "names no file"),
        ("echo $(ls", "does not end"), ("echo `ls", "does not end"), ("echo `ls\\`", "does not end"),
        ("echo ${x", "does not end"),
        ("echo ${x:-\"}", "does not end"), ("echo ${x:-'}", "does not end"), ("echo \"${x#'}\"", "does not end"),
        ("echo ${x:-\\}", "does not end"), ("echo $(ls >)", "names no file"), ("echo \"$(ls 'x)\"", "quote"),
        ("echo `ls |`", "nothing follows |"), ("cat <<E\n$(ls\nE", "does not end"), ("echo $(ls (x)", "does not end"),
        ("cat <<E\nE\\\n\nls\nE", "shells differ"), ("cat <<E\n\\\nE", "shells differ"),
        ("cat <<-E\n\t\\\n\tE\nls\n\tE", "shells differ"),
        ("${x}" * 60 + "$(" * 40 + ")" * 40, "too many"), ("$(a)" * 60 + "${x:-" * 40 + "}" * 40, "too many"),
        ("$(" * 40 + ")" * 40, "too many"), ("${x:-" * 40 + "}" * 40, "too many"), ("ls " + "x" * LONGEST, "more than"),
    ],
)  # fmt: skip
def test_what_no_shell_can_run_is_said(line: str, why: str) -> None:
    command = read_command(line)
    assert why in command.broken
    assert not command.plain


@pytest.mark.parametrize(
    "line", ["ls;", "ls &", "ls;\n", "ls\n", "ls x" * 20_000, "$(ls)" * 50, "${x}" * 50, "`ls` " * 50, "a;;b", "a;&b"]
)
def test_what_a_shell_can_run_is_not_broken(line: str) -> None:
    assert read_command(line).broken == ""


def test_what_was_read_before_it_broke_is_kept() -> None:
    assert parts("ls; git push $'x") == ["ls", "git push"]
    assert parts("git push | ") == ["git push"]
    assert parts("git push >") == ["git push"]
    assert parts("ls $(git push") == ["git push"]


@pytest.mark.parametrize(
    ("line", "plain"),
    [
        ("ls -la 'a b'", True), ("ls *", True), ("x=1 ls", False), ("ls x=1", True), ("ls | wc", False), ("ls $x", False),
        ("", False),
        ("ls 'x", False), ("x+=1 ls", False), ("1x=1 ls", True), ("_x1=a ls", False), ("'x'=1 ls", False),
    ],
)  # fmt: skip
def test_a_plain_command_is_one_program_and_its_arguments(line: str, plain: bool) -> None:
    command = read_command(line)
    assert command.plain is plain
    assert command.argv == tuple(word.text for word in command.words)
    assert is_assignment(command.words[0]) is ("=" in command.argv[0] and line[0] != "1") if command.words else not plain


def test_words_know_whether_they_have_wildcards() -> None:
    line = "a* b? [c] 'd*' \\e* \"f\"* \\* {g,h} $i"
    assert [word.wild for word in read_command(line).words] == [True, True, True, False, True, True, False, False, False]


_PIECES = [
    "git", "push", "x", "'", '"', "\\", "\n", " ", "\t", "$x", "${x", "}", "$(", ")", "`", "(", "&&", "|",
    ";", "&", ">", "<", "<<E\n", "\nE\n",
    "#", "{", "[", "]", "*", "$'", "$", "\\\n", "2>", "=", "é",
]  # fmt: skip


@settings(max_examples=runs(500), derandomize=True, deadline=None, database=None)
@given(st.lists(st.sampled_from(_PIECES), max_size=12).map("".join))
def test_no_letter_of_a_line_is_lost(line: str) -> None:
    command = read_command(line)
    assert [word.start for word in command.words] == sorted(word.start for word in command.words)
    assert all(0 <= word.start <= word.end <= len(line) for word in command.words)
    assert {word for part in command.parts for word in part} <= set(command.words)
    if command.broken:
        return
    assert [o.start for o in command.operators] == sorted(o.start for o in command.operators)
    assert all(
        word.text == word.shape for word in command.words if not word.wild and UNKNOWN not in word.shape and "{" not in word.text
    )
    if "<<" not in line:
        covered = {at for one in (*command.words, *command.operators) for at in range(one.start, one.end)}
        left = "".join(letter for at, letter in enumerate(line) if at not in covered)
        assert not left.strip(" \t2")  # a number before a redirection is part of neither
        for word in command.words:
            if "`" not in line and not {"'", '"', "\\", "$'"} & set(line):
                assert line[word.start : word.end] == word.text


@pytest.mark.skipif(shutil.which("sh") is None, reason="no shell here")
def test_words_are_those_of_a_real_shell() -> None:
    r = random.Random(3)
    pieces = [
        "a",
        "bc",
        "'",
        '"',
        "\\",
        " ",
        "  ",
        "\t",
        "\\\n",
        "a#",
        "'#",
        "\\$",
        "'x y'",
        '"x y"',
        "é",
        "\\\\",
        "{",
        "}",
        "]",
        "=",
        ".",
    ]
    lines = ["a " + "".join(r.choices(pieces, k=8)) for _ in range(runs(600))]
    lines = [
        line for line in lines if not read_command(line).broken and {what for _, what in signs(line)} <= {"a line that goes on"}
    ]
    script = "\n".join(f"printf '%s\\001' {line}\nprintf '\\002'" for line in lines)
    said = subprocess.run(["sh", "-c", script], capture_output=True, check=True).stdout.decode().split("\2")[:-1]
    assert [list(read_command(line).argv) for line in lines] == [one.split("\1")[:-1] for one in said]


@pytest.mark.skipif(shutil.which("sh") is None, reason="no shell here")
def test_no_command_that_a_real_shell_runs_is_missed(tmp_path: Path) -> None:
    r = random.Random(5)
    pieces = [
        "'", '"', '"', "\\", " ", " ", ";", "\n", "&&", "|", "(", ")", "{ ", "}", "}", "$(", "`", "${x:-",
        "${x#", '"${x:-', "$x", "<<E\n", "\nE\n",
        "#", "$((", "\\\n", "\\\n", "$", "$", "E\n", "! ", "if ", ";then ", ";fi ",
    ]  # fmt: skip
    lines = []
    while len(lines) < runs(600):
        line = "".join(f"m {i} " if r.random() < 0.3 else r.choice(pieces) for i in range(14))
        if not read_command(line).broken:
            (tmp_path / str(len(lines))).write_text(line)
            lines.append(line)
    script = f'm() {{ echo "$i $1" >&9; }}; x=1; i=0; while [ $i -lt {len(lines)} ]; do ( . ./$i ); i=$((i+1)); done'
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run(["sh", "-c", f"exec 9>log; {script}"], cwd=tmp_path, check=False, **quiet)
    ran = {(lines[int(number)], words) for number, words in map(str.split, (tmp_path / "log").read_text().splitlines())}
    assert len(ran) > len(lines) / 4
    assert not [line for line, number in ran if f" m {number} " not in f" {'  '.join(parts(line)).replace('?', ' ')} "]


_AROUND = (
    "{}", "a;{}", "a|{}", "a\n{}", "({})", "$({})", "a $({}) b", '"$({})"', "${{x:-$({})}}", "a & {}", "{} >f", "<({})",
    "cat <<E\n$({})\nE",
)  # fmt: skip


@settings(max_examples=runs(200), derandomize=True, deadline=None, database=None)
@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8), min_size=1, max_size=4))
def test_quoted_words_come_back_from_every_place_a_command_may_stand(words: list[str]) -> None:
    quoted = shlex.join(words)
    for around in (
        "{}",
        "a;{}",
        "a|{}",
        "a\n{}",
        "({})",
        "$({})",
        "a $({}) b",
        '"$({})"',
        "${{x:-$({})}}",
        "a & {}",
        "{} >f",
        "<({})",
        "cat <<E\n$({})\nE",
    ):
        if "<<" in around and "\nE\n" in f"{quoted}\n":
            continue  # that ends the here-document
        command = read_command(around.format(quoted))
        assert command.broken == ""
        assert tuple(words) in [tuple(word.text for word in part) for part in command.parts]
