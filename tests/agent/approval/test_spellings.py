"""A rule that denies finds its command however it is spelled: a grammar of spellings, and a real shell as the judge."""

from __future__ import annotations

import os
import random
import shlex
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from agent.approval.policy import Policy, Rule
from agent.approval.spellings import mentions
from agent.messages import ToolCall
from agent.text.command_line import read_command
from agent.tools.builtin.catalogue import builtin
from tests.fixtures.generated import runs

Rewrite = Callable[[str, random.Random], str]


RUN = builtin(["run_command"], root=Path("/usr"))[0]
RUN.unconfined = ""


def denied(line: str, *patterns: str) -> bool:
    rules = [Rule("allow", "run_command"), *(Rule("deny", "run_command", "command", pattern) for pattern in patterns)]
    return Policy(rules).decide(RUN, ToolCall("run_command", {"command": line})).action == "deny"


# How one word may be spelled.

WORDS: list[Rewrite] = [
    lambda w, r: w,
    lambda w, r: f"'{w}'",
    lambda w, r: f'"{w}"',
    lambda w, r: "".join(f"\\{c}" if r.random() < 0.4 and c != "n" else c for c in w),
    lambda w, r: (lambda i: f'{w[:i]}"{w[i:]}"')(r.randrange(len(w))),
    lambda w, r: (lambda i: f"{w[:i]}''{w[i:]}")(r.randrange(len(w))),
    lambda w, r: (lambda i: f"{w[:i]}${{none}}{w[i:]}")(r.randrange(len(w))),
    lambda w, r: (lambda i: f"{w[:i]}\\\n{w[i:]}")(r.randrange(1, len(w))),
    lambda w, r: f"$(echo {w})",
    lambda w, r: f"`echo {w}`",
]
BLANKS = [" ", "  ", "\t", " \\\n", "$IFS", "${IFS}"]
GLOBAL = ["", "-C .", "--no-pager", "-c x=y", "--git-dir=.git", "--work-tree .", "-c alias.x=y --no-pager", "-P"]
PROGRAMS: list[Rewrite] = [lambda w, r: w, lambda w, r: f"/usr/bin/{w}", lambda w, r: f"./{w}"]

# What may stand around a command. {} is the command, {q} the command as one quoted word.
AROUND = [
    "{}", "ls && {}", "false || {}", "ls; {}", "ls | {}", "{} | cat", "ls &\n{}", "ls\n{}", "ls # it's\n{}", "({})", "{{ {}; }}",
    "if true; then {}; fi", "while {}; do break; done", "for i in 1; do {}; done", "case x in x) {};; esac", "! {}", "time {}",
    "f() {{ {}; }}; f", "{} > out", "> out {}", "2>/dev/null {}", "{} < /dev/null", "{} &", "echo $({})", 'echo "$({})"',
    "x=$({}); echo $x", "cat <<E\n$({})\nE", "echo ${{none:-$({})}}", "A=1 {}", "A=1 B=2 {}", "eval {q}", "eval eval {q}",
    "trap {q} EXIT",
    "env {}", "env A=1 {}", "env -u A {}", "nohup {}", "nice {}", "nice -n 5 {}", "timeout 5 {}", "timeout -k 1 5 {}", "exec {}",
    "command {}", "stdbuf -oL {}", "setsid {}", "sudo {}", "sudo -u bob {}", "doas {}", "busybox {}", "strace -f {}", "watch {}",
    "xargs {}", "echo x | xargs -n 1 {}", "find . -exec {} \\;", "find . -name x -ok {} \\;", "flock f {}", "chroot . {}",
    "sh -c {q}", "bash -lc {q}", "/bin/sh -ec {q}", "busybox sh -c {q}", "env sh -c {q}", "sudo bash -c {q}", "echo {q} | sh",
    "echo {q} | bash -s", "printf %s {q} | tee f | sh -", "sh <<E\n{}\nE", "sh -s <<'E'\n{}\nE", "env -S {q}", "ssh host {q}",
    "su -c {q}", "script -c {q} f", "find . -exec sh -c {q} \\;", "xargs -I% sh -c {q}", "parallel {q} ::: a", "watch {q}",
    "python3 -c \"import os; os.system({q})\"", "make SHELL={q}", "tar xf a --to-command={q}", "man -P {q} x", "vim -c ':!'{q}",
    "git -c core.pager={q} log", "git rebase --exec {q} main", "git bisect run {}", "git submodule foreach {q}",
    "rsync -e {q} a b", "ssh -oProxyCommand={q} h", "less '+!'{q}", "m4 -Dx={q}",
    "zip a b -T -TT {q}", "flock f -c {q}", "GIT_PAGER={q} git log", "alias x={q}", "sort --compress-program={q} a",
    "echo a | sudo xargs {}", "sudo find . -exec {} \\;", "fd x -X {}", "env nice -n 5 timeout 5 {}",
]  # fmt: skip
PLAIN = [a for a in AROUND if "{q}" not in a and "<<" not in a and a != "{} &"]


# Where a program hands its text to a shell, so that it may be spelled in every way that shows a word.
FOR_A_SHELL = [
    "sh -c {q}", "sudo bash -c {q}", "eval {q}", "env -S {q}", "ssh host {q}", "watch {q}", "xargs -I% sh -c {q}",
    "rsync -e{q} a b",
    "find . -exec sh -c {q} \\;", "tar xf a --to-command={q}", "vim -c ':!'{q}", "less '+!'{q}", "less '+'{q}", "more ':'{q} a",
    "git rebase --exec {q} main", "git -c alias.x='!'{q} x", "GIT_PAGER={q} git log", "sort --compress-program={q} a",
    "echo {q} | sh",
    "make SHELL={q}", "ssh -oProxyCommand={q} h", "foo {q} a", "foo -x {q}",
]  # fmt: skip


def push(r: random.Random, *, simple: bool = False, words: Sequence[Rewrite] = WORDS) -> str:
    """One spelling of ``git push``."""
    if simple:  # what stands in another language's text is written plainly
        return f"git {r.choice(GLOBAL)} push origin".replace("  ", " ")
    blank = r.choice(BLANKS if words is WORDS else BLANKS[:4])
    spelled = [r.choice(words)("git", r), *r.choice(GLOBAL).split(), r.choice(words)("push", r)]
    return f"{blank.join(spelled)} {r.choice(['', 'origin', '--force', 'origin main'])}".strip()


def generated(count: int) -> list[str]:
    r = random.Random(14)
    lines = []
    for i in range(count):
        around = AROUND[i % len(AROUND)]
        quoted = "{q}" in around
        inner = push(r, simple=quoted)
        if r.random() < 0.4:  # within each other
            inner = r.choice(PLAIN).format(inner)
            inner = inner if not quoted or "'" not in inner else push(r, simple=True)
        lines.append(around.format(inner, q=shlex.quote(inner)))
    return lines


def test_a_deny_finds_every_spelling() -> None:
    lines = generated(runs(600))
    assert [line for line in lines if not denied(line, "git push")] == []


@pytest.mark.parametrize("around", FOR_A_SHELL)
def test_a_deny_finds_every_spelling_in_a_text_for_a_shell(around: str) -> None:
    r = random.Random(15)
    lines = [around.format(q=shlex.quote(push(r, words=WORDS[:8]))) for _ in range(runs(60))]
    assert [line for line in lines if not denied(line, "git push")] == []


OTHERS = {
    "git branch -D": ["git branch -D x", "git branch --delete x", "git branch x -D", "git -C . branch -fD x"],
    "tar -xf": ["tar -xf a", "tar -fx a", "tar -x -f a", "tar -vxf a", "tar -x a -f"],
    "rm -r -f": ["rm -fr x", "rm -f x -r"],
    "git -C x push": ["git -C x push", "git -Cx push"],
    "git push origin": [
        "git push origin", "git push -u origin main", "git -C . push --force origin", "git $x origin", "git push -xorigin",
        "git push --repo=origin", "git push --x origin", "git push o$x", "git push origi?",
    ],
    "git log --format=raw": ["git log --format=raw", "git log --form=raw", "git log -1 --format raw", "git log --format"],
    "cat -": ["cat -", "cat -n -"],
    "rm -rf": [
        "rm -rf x", "rm -r -f x", "rm -fr x", "rm x -rf", "rm --recursive --force x", "rm --rec --fo x", "rm -Rf x",
        "sudo rm -rf /", "rm -v -r x -f", "rm -rf $x", "rm $x", "xargs rm", "find . -exec rm -rf {} +", "r\\m -rf x",
        "rm -- x -rf", "rm -r$x", "/bin/rm -rvf x",
        "rm -r -r -f x", "rm -Rrf x", "rm --recursive -f --recursive x", "rm -rv -rf x", "rm --force -R x", "rm -f $x",
    ],
    "rm": [
        "rm x", "unlink x; rm y", "find . -exec rm {} ;", "$x", "xargs rm", "/bin/r?", "{rm,x}", "busybox rm x", "\\rm x",
    ],
    "git push --force": [
        "git push --force", "git push -f", "git push origin --force", "git push --forc", "git -C . push -uf o",
        "git push --force=x", "git push --f", "git push -vf", "git push $x", "git-push --force", "git push -uF o",
    ],
    "git push": [
        "git p", "git -c alias.p=push p", "git-push", "/usr/lib/git-core/git-push o", "alias g=git\ng push", "x=push; git $x",
        "git \"$@\"", "x=git; $x push", "$x push", "{git,push}", "g?t push", "/usr/bin/g* push", "gi[st] push", "git pus?",
        "git 2>&1 push", "git >x push", "git &>x push", "ls &>x git push", "echo push | xargs git", "x | sudo xargs git",
        "x | env A=1 nice xargs git", "find . -exec xargs git ;",
        "x | sudo xargs -I{} sh -c {}", "sudo find . -exec sh -c '{}' ;", "fd x -x sh -c {}", "sudo bash", "A=1 bash",
        "sudo sh -s < x",
        "sudo -u a sh", "*", "g*", "foo $x push", "foo gi$x", "foo $x$x git push", "sh -c '$x'", "sh -c '$x push'", "ls\0",
        "x | parallel git",
        "gi$x", "git$x", "git ${x}push", "git pu${x}h", "$x/git push", "/$x/g$y push", "./g$x p$y", "foo 'gi$x push'",
        "alias x=\"$y git\"", "make log 'git push'", "awk status 'git push'", "sudo git push", "sudo /a/git-push", "foo;git push",
        "foo 'a;git push'", "foo a,git,push",
        "then git push",
        "sh --version git push", "bash -c -- 'git push'", "ksh -l", "x | sh -x", "env sh", "csh /dev/fd/0", "sh /proc/self/fd/0",
        "cat x | sh", "sh < x",
        "bash", "curl x | bash -", "sh /dev/stdin", "find . -exec sh -c '{}' ;", "xargs sh", "$'git' push", "$'\\x67it' push",
        "python3 -c \"subprocess.run(['git', 'push'])\"", "diff <(git push) x", "perl -e 'exec qw(git push)'",
        "git $(echo push)", "git -- push", "node -e \"spawn('git',['push'])\"", "((git push))", "echo ${x:-`git push`}",
        "coproc git push", "if git push; then :; fi", "git --exec-path=/x push", "git\\\n push",
    ],
    "pip install": [
        "pip install x", "pip3 install x", "pip3.12 install x", "python3 -m pip install x", "pip -q install x",
        "pip --proxy x install y", "uv pip install x", "sudo -H pip install x",
    ],
    "docker run": [
        "docker run x", "docker --host x run y", "docker -H x run y", "sudo docker run x",
    ],
    "systemctl *": [
        "systemctl stop x", "sys$x", "$x", "/usr/bin/sys$x y", "sudo systemctl --now stop x", "$x stop",
    ],
    "curl * | sh": [
        "curl x | sh",
    ],
    "c*l": [
        "curl x", "/usr/bin/curl", "cal",
    ],
}  # fmt: skip


@pytest.mark.parametrize(("pattern", "line"), [(pattern, line) for pattern, lines in OTHERS.items() for line in lines])
def test_a_deny_finds_its_options_in_any_order_and_what_could_be_meant(pattern: str, line: str) -> None:
    assert denied(line, pattern)


HARMLESS = {
    "git branch -D": ["git branch", "git branch --list", "git branch -a"],
    "tar -xf": ["tar -x a", "tar -f a", "tar xf a", "tar"],
    "systemctl *": ["foo x", "make sys"],
    "git push origin": [
        "git push", "git push other", "git push other origin", "git pull origin", "git push -- other origin", "git push -vorigi",
        "git push --repo=x other origin", "git push originx",
    ],
    "git log --format=raw": ["git log", "git log --format=full", "git log raw"],
    "cat -": ["cat a", "cat"],
    "c*l": ["ls", "tar", "cargo"],
    "git push": [
        "ls", "git status", "git log --oneline -5", "cp $a b", "echo git push", "grep push x", "git log --grep push",
        "cat git push", "git commit -m 'stop git push'", "ls $HOME", "make $x", "make test", "git stash push", "git add .",
        "git log -p push", "echo hi > x", 'for f in *; do cat "$f"; done', "[ -f x ] && ls", "find $d -name x", "rm *.txt",
        "cat <<'E' > x\nhi there\nE", "python3 x.py", "sh build.sh", "bash --version", "ls -la | grep git | wc -l",
        "git diff HEAD~1 > d.patch", "cd x && make -j4 && ./run", "curl https://git.example/push", "echo $((1+2))",
        "test -d .git || echo push", "printf '%s' \"$x\"", "ls *", "git log $x", "git add *", "mkdir -p $a/$b",
        "sort $f | uniq -c", "ls 'x", "make x=", "make 'x y' 'x y'", "rm 'git push'", "cp -- 'git push' x", "mv a 'git push'",
        "sh --help", "find . -exec sh build.sh ;", "fd x -x sh build.sh", "make $x $y", "foo $x $y $z", "foo git-push x", "git",
        "git -C x",
        "git -c a=b", "foo '$x y'", "make -f - <<E\n$x y\nE", "git pushx$y", "sudo ls", "xargs ls", "x | xargs -n 1 ls",
        "git ../x y",
        "find . -exec ls {} ;", "find . ! -name x", "awk -F ' ' 1 a", "foo '' : + '# git' '!'", "make * *", "cat sh",
        "if ls; then cat x; fi", "A=1 make x", "x=git", "fi git push", "git log $x $y",
        "git commit -m \"$x\"", "alias", "alias l=ls", "sudo sh build.sh", "env A=1 sh build.sh -x", "gi", "push git",
        "foo push git", "make r?",
        "foo -git push x", "gitk push", "git.x push", "legit push", "g push", "foo 'x y' z", "make -j$x all",
    ],
    "rm -rf": [
        "rm x", "rm -r x", "rm -f x", "rm *.txt", "ls -rf", "rmdir x", "rm -- x", "grep -rf a b",
    ],
    "rm": [
        "ls", "rmdir x", "echo rm-rf", "ls farm", "git rm-x", "cat rm", "make *", "make ?", "cp $a b", "farm x", "foo 'r m'",
    ],
    "git push --force": [
        "git-push", "git-push x", "git push *", "git push -u", "git push -- x", "git push --", "git push",
        "git push -u origin main", "git fetch --force",
    ],
    "pip install": [
        "pip list", "pip show install-x",
    ],
}  # fmt: skip


@pytest.mark.parametrize(("pattern", "line"), [(pattern, line) for pattern, lines in HARMLESS.items() for line in lines])
def test_a_deny_leaves_alone_what_nobody_could_mean(pattern: str, line: str) -> None:
    assert not denied(line, pattern)


def test_what_only_a_shell_knows_may_stand_for_any_part_of_a_command() -> None:
    """Where a program stands, for all of it; behind another program, where the command begins with a letter of it."""
    r = random.Random(16)
    for _ in range(runs(600)):
        command = r.choice(["git push", "git push origin", "git push -f x"])
        cuts = sorted(r.sample(range(len(command) + 1), r.choice((2, 4))))
        pieces = [command[start:end] for start, end in zip([0, *cuts[1::2]], [*cuts[::2], len(command)], strict=True)]
        line = r.choice(("${none}", "$(echo x)", "`x`")).join(pieces)
        assert denied(line, "git push"), line
        assert denied(f"sudo {line}", "git push"), line
        if pieces[0]:
            assert denied(f"foo {line}", "git push"), line


SPLIT = [
    'x="git push "; $x/bin/tool', 'x="git push "\n${x}/tool', "x=n/git; /usr/bi$x push", "x=t; /usr/bin/gi$x push",
    '$(echo "git push ")/tool', "`echo git push `/tool", 'HOME="git push "; $HOME/bin/tool', 'export HOME="git push "; ${HOME}/x',
    "HOME='git push ' sh -c '$HOME/x'", "read HOME; $HOME/x", "for HOME in 'git push '; do $HOME/x; done",
    "sudo $x/bin/tool", "/usr/bi${x}/y push", "printf -v HOME 'git push '; $HOME/x", ": ${HOME:=git push }; $x/y",
]  # fmt: skip


@pytest.mark.parametrize("line", SPLIT)
def test_a_variable_among_a_programs_folders_may_hold_all_of_a_command(line: str) -> None:
    assert denied(line, "git push")


@pytest.mark.parametrize(
    "line", ["$HOME/bin/tool push", "${PWD}/build/x", "$VIRTUAL_ENV/bin/python x.py", "ls $x/bin", "$HOME/bin/x $HOME/y"]
)
def test_a_folder_that_is_one_hides_no_command(line: str) -> None:
    assert not denied(line, "git push")


@pytest.mark.parametrize("alias", ["tree", "pack", "objects", "object", "format", "check-ref-", "publish"])
def test_what_git_does_not_know_is_an_alias_and_could_be_anything(alias: str) -> None:
    assert denied(f"git {alias} origin", "git push")
    assert not denied("git write-tree origin", "git push")


def test_more_texts_than_anybody_reads_could_be_anything() -> None:
    for count in (100, 1000):
        assert denied("foo " + " ".join(f"'a{n} b'" for n in range(count)), "git push") == (count > 500)
        assert denied(f"foo '{'git log, ' * count}'", "git push") == (count > 500)


def test_more_words_than_anybody_reads_could_be_anything() -> None:
    assert denied("foo" + " a" * 4000, "git push")
    assert not denied("foo" + " a" * 100, "git push")
    assert not denied("cp --" + " git push" * 2000, "git push")


def test_text_without_end_is_read_in_time() -> None:
    hard = [
        "git ",
        "x",
        "'git x ",
        "sh -c ",
        "$x ",
        '"$(a)" ',
        "a=",
        "git -x ",
        "foo $x ",
        "sudo ",
        "sh -c 'git -c \"",
        "{",
        "[",
        "<<E\n",
    ]
    for piece in hard:
        line = (piece * 12_000)[:12_000]
        began = time.process_time()
        mentions(read_command(line), ("git", "push"))
        mentions(read_command(f"foo '{line}"), ("git", "push"))
        assert time.process_time() - began < 3, piece


# A real shell says what a line really runs.


@pytest.fixture
def shell(tmp_path: Path) -> Callable[[str], bool]:
    """Runs a line where ``git`` only writes down what it is told; whether it was told to push."""
    tools, log = tmp_path / "tools", tmp_path / "log"
    tools.mkdir()
    for name in ("git", "sudo", "doas", "ssh", "watch", "strace", "busybox", "su", "script", "make", "vim", "man"):
        (tools / name).write_text(f'#!/bin/sh\necho "${{0##*/}}" "$@" >> {log}\n')
        (tools / name).chmod(0o755)

    def run(line: str) -> bool:
        log.write_text("")
        place = tmp_path / "place"
        place.mkdir(exist_ok=True)
        environment = {"PATH": f"{tools}:/usr/bin:/bin", "HOME": str(place)}
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run(["/bin/sh", "-c", line], cwd=place, env=environment, timeout=20, check=False, **quiet)
        return any("push" in told.split() for told in log.read_text().splitlines() if told.startswith("git"))

    return run


PIECES = [
    "/usr/bin/", "/", "$HOME/", "x='git push '",
    "git", "push", "log", "g", "it", "gi", "t", "pu", "sh", "$x", "${x}", "'", '"', "\\", " ", " ", " ", "$(", ")", "`",
    "echo ", "x=git", "x=push", ";", "\n", "&&", "|", "-C .", "--no-pager", "env ", "sh -c ", "eval ", ">o ", "{", "}", "#",
    "<<E\n", "\nE\n", "xargs ",
]  # fmt: skip


@pytest.mark.skipif(not os.access("/bin/sh", os.X_OK), reason="no shell here")
def test_whatever_a_real_shell_makes_push_is_denied(shell: Callable[[str], bool]) -> None:
    r = random.Random(7)
    lines = [line for line in generated(max(len(AROUND), runs(3 * len(AROUND)))) if "/usr/bin" not in line]
    r.shuffle(lines)
    soup = [
        f"git push {''.join(r.choices(PIECES, k=4))}",
        *("".join(r.choices(PIECES, k=r.randint(3, 9))) for _ in range(runs(60))),
    ]
    really = 0
    for line in [*lines[: runs(90)], *soup]:
        if shell(line):
            really += 1
            assert denied(line, "git push"), line
    assert really >= runs(30)
