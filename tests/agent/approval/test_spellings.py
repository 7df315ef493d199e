"""A rule that denies finds its command however it is spelled: a grammar of spellings, and a real shell as the judge."""

from __future__ import annotations

import os
import random
import shlex
import subprocess
import time
from collections.abc import Callable
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
    "zip a b -T -TT {q}", "flock f -c {q}", "GIT_PAGER={q} git log", "alias x={q}",
]  # fmt: skip
PLAIN = [a for a in AROUND if "{q}" not in a and "<<" not in a and a != "{} &"]


def push(r: random.Random, *, simple: bool = False) -> str:
    """One spelling of ``git push``."""
    if simple:  # what stands in another language's text is written plainly
        return f"git {r.choice(GLOBAL)} push origin".replace("  ", " ")
    blank = r.choice(BLANKS)
    words = [r.choice(WORDS)("git", r), *r.choice(GLOBAL).split(), r.choice(WORDS)("push", r)]
    return f"{blank.join(words)} {r.choice(['', 'origin', '--force', 'origin main'])}".strip()


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


OTHERS = {
    "git branch -D": ["git branch -D x", "git branch --delete x", "git branch x -D", "git -C . branch -fD x"],
    "git push origin": ["git push origin", "git push -u origin main", "git -C . push --force origin", "git $x origin"],
    "git log --format=raw": ["git log --format=raw", "git log --form=raw", "git log -1 --format raw", "git log --format"],
    "cat -": ["cat -", "cat -n -"],
    "rm -rf": [
        "rm -rf x", "rm -r -f x", "rm -fr x", "rm x -rf", "rm --recursive --force x", "rm --rec --fo x", "rm -Rf x",
        "sudo rm -rf /", "rm -v -r x -f", "rm -rf $x", "rm $x", "xargs rm", "find . -exec rm -rf {} +", "r\\m -rf x",
        "rm -- x -rf", "rm -r$x", "/bin/rm -rvf x",
    ],
    "rm": [
        "rm x", "unlink x; rm y", "find . -exec rm {} ;", "$x", "xargs rm", "/bin/r?", "{rm,x}", "busybox rm x", "\\rm x",
    ],
    "git push --force": [
        "git push --force", "git push -f", "git push origin --force", "git push --forc", "git -C . push -uf o",
        "git push --force=x",
    ],
    "git push": [
        "git p", "git -c alias.p=push p", "git-push", "/usr/lib/git-core/git-push o", "alias g=git\ng push", "x=push; git $x",
        "git \"$@\"", "x=git; $x push", "$x push", "{git,push}", "g?t push", "/usr/bin/g* push", "gi[st] push", "git pus?",
        "git 2>&1 push", "git >x push", "git &>x push", "ls &>x git push", "echo push | xargs git", "cat x | sh", "sh < x",
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
        "systemctl stop x", "sudo systemctl --now stop x", "$x stop",
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
    "git push origin": ["git push", "git push other", "git push other origin", "git pull origin"],
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
        "sort $f | uniq -c",
    ],
    "rm -rf": [
        "rm x", "rm -r x", "rm -f x", "rm *.txt", "ls -rf", "rmdir x", "rm -- x", "grep -rf a b",
    ],
    "rm": [
        "ls", "rmdir x", "echo rm-rf", "ls farm", "git rm-x", "cat rm",
    ],
    "git push --force": [
        "git push -- x", "git push --", "git push", "git push -u origin main", "git fetch --force",
    ],
    "pip install": [
        "pip list", "pip show install-x",
    ],
}  # fmt: skip


@pytest.mark.parametrize(("pattern", "line"), [(pattern, line) for pattern, lines in HARMLESS.items() for line in lines])
def test_a_deny_leaves_alone_what_nobody_could_mean(pattern: str, line: str) -> None:
    assert not denied(line, pattern)


@pytest.mark.parametrize("alias", ["tree", "pack", "objects", "object", "format", "check-ref-", "publish"])
def test_what_git_does_not_know_is_an_alias_and_could_be_anything(alias: str) -> None:
    assert denied(f"git {alias} origin", "git push")
    assert not denied("git write-tree origin", "git push")


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
