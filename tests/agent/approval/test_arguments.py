"""A rule that allows a program is about its harmless arguments: what writes, runs or sets something is asked for alone."""

from __future__ import annotations

import random
import shutil
import string
import subprocess
from pathlib import Path

import pytest

from agent.approval import arguments
from agent.approval.policy import Policy, Rule
from agent.messages import ToolCall
from agent.text.command_line import read_command
from agent.tools.builtin.catalogue import builtin
from tests.fixtures.generated import runs

RUN = builtin(["run_command"], root=Path("/usr"))[0]
RUN.unconfined = ""


def allowed(line: str, *patterns: str) -> bool:
    rules = [Rule("allow", "run_command", "command", pattern) for pattern in patterns]
    action = Policy(rules).decide(RUN, ToolCall("run_command", {"command": line})).action
    assert action in ("allow", "ask")
    return action == "allow"


# A rule, what it covers, what it does not.
RULES: dict[str, tuple[str, str]] = {
    "git log": (
        "git log|git log --oneline -5|git log -p|git log -n 5 --stat|git log -n5 --graph --decorate=short|"
        "git log main..dev src|git log --since='2 days' -- src|git log --format='%h %s' -- a|git log -S'foo bar' -p src/a.py|"
        'git "log" -1|git log -pn3',
        "git log --output=x|git log --output x|git log --outp=x|git log -1 --output=.git/config --format=x|git log --ext-diff|"
        "git log --ext-d|git log --textconv|git log --tex|git log -- --output=x|git log --grep -- --output=x|"
        "git log x --output=y|git -c core.pager=sh log|git -C /x log|git --git-dir=x log|git -p log|git --paginate log|"
        "git --exec-path=. log|git --config-env=core.pager=X log|GIT_PAGER=sh git log|env git log|git log -pO/x|git log -O/x|"
        "git log --show-signature|git log | cat|git log > x|git log $x|git --work-tree=/ log|git log -o x|/tmp/git log|"
        "./git log|git logs|git|git log --no-index|git log --contents=x|git log '--output=x'|git log --out\"put\"=x|"
        "git log --oneline=x --output|git log \\--output=x",
    ),
    "git": (
        "git log|git status -s|git --no-pager log|git -P --no-optional-locks log -3|git --no-pager branch -a|git reflog|"
        "git count-objects -v|"
        "git stash|git push -v|git log -- a b|git diff HEAD|git branch -a|git tag|git fetch|"
        "git remote -v|git add a b|git commit -m 'x y'",
        "git config x y|git -c x=y log|git push origin|git remote add a b|git submodule foreach x|git foo|git bisect run x|"
        "git difftool|git branch -D x|git tag x|git branch x|git stash pop|git clone x|git init --template=x|git commit -F x|"
        "git rebase -x a b|git reflog delete x|git remote x|git remote prune x|git tag -l x|git count-objects x|git branch -l *|"
        "git stash x|git fetch x|git -C . log|git --no-pager -C x log|git --no-pager config x y|git --no-pager x|git --no-pager|"
        "git -C x log|git help log|git log --output=x|git --exec-path=x log|git add -p|"
        "git archive -o x HEAD|git fetch --upload-pack=x .",
    ),
    "git grep": (
        "git grep -n x|git grep -e a --and -e b",
        "git grep -Ovi x|git grep --open-files-in-pager=sh x|git grep -nO x|git grep --op x",
    ),
    "git blame": ("git blame a.py|git blame -L 1,3 a", "git blame --contents x a|git blame --cont x a"),
    "git show": ("git show HEAD:a|git show --stat", "git show --output=x|git show --textconv HEAD:a"),
    "git diff": (
        "git diff HEAD~1 -- a|git diff --cached --stat",
        "git diff --no-index a b|git diff --ext-diff|git diff --output=x",
    ),
    "git -C sub log": ("git -C sub log -3", "git -C sub2 log|git -C sub log --output=x"),
    "git -C": ("", "git -C x log|git -C x"),
    "git push": ("git push", "git push origin|git push --force|git push --receive-pack=x|git push -o x"),
    "git log --output=*": (
        "git log --output=x|git log --output=x -3",
        "git log --outpux=x|git log --output x|git log --output=x --ext-diff",
    ),
    "git *": ("git log|git status", "git config|git push origin|git gc|git -c|git -p"),
    "g* log": ("", "git log|grep log"),
    "* log": ("", "git log|rm log"),
    "find": (
        "find . -name x|find . -type f -print|find . -maxdepth 2 -size +1k",
        "find . -exec rm {} \\;|find . -delete|find . -fprint x|find . -ok x|find . -execdir x|find . -fls x|find . -fprintf x y",
    ),
    "sort": (
        "sort -n a|sort -k2 -t, a b|sort -rn",
        "sort -o a b|sort -ob a|sort --output=a b|sort --out=a b|sort --compress-program=sh a|sort -T/x a|sort -no a",
    ),
    "uniq": (
        "uniq a|uniq -c|uniq -c -- a|uniq -|uniq -f 1",
        "uniq a b|uniq -c a b|uniq *|uniq 'a?'|uniq -- a b|uniq -- a -c|uniq - b",
    ),
    "uniq a": ("uniq a -c", "uniq a b|uniq a -"),
    "uniq -f": ("uniq -f 1", "uniq -f 1 a"),
    "xxd": ("xxd a|xxd -l16 a|xxd", "xxd a b|xxd -r a b"),
    "diff": ("diff a b|diff -ru a b", "diff -l a b|diff --paginate a b|diff --output=x a b"),
    "rg": ("rg -n x|rg --hidden -C3 x", "rg --pre sh x|rg --pre=sh x|rg -z x|rg --hostname-bin x|rg --search-zip x"),
    "tree": ("tree -L 2|tree -a", "tree -o x|tree -R|tree -ao x"),
    "date": ("date|date -u", "date -s x|date --set=x|date 010100002030"),
    "hostname": ("hostname|hostname -I", "hostname x|hostname -F x"),
    "file": ("file a", "file -C -m x|file -z a|file --compile"),
    "gzip": ("gzip a|gzip -k a", "gzip -S x a|gzip --suffix=x a"),
    "ls": ("ls|ls -la x|ls --color|ls *", "ls; x|ls -l | x|ls > x|ls $x|ls\nx|sudo ls"),
    "cat": ("cat a|cat -n a", "cat a | sh|cat < a|cat <<< a"),
    "rm": ("rm a", "rm -rf a|rm -r a"),
    "cp": ("cp a b|cp - a|cp -- a b", "cp -t x a|cp --target-directory=x a|cp -r a b|cp a --x b|cp -- -r a"),
    "git config a b": ("git config a b", "git config a b c|git config a"),
    "git log --*=*": ("git log --format=x", "git log --output=x|git log --exec=x"),
    "git log --format=*": ("git log --format=x|git log --format=x -1", "git log --format=x --output=y|git log --format"),
    "git log *": ("git log -p|git log a", "git log --output=x|git log a --output=x"),
    "/usr/bin/sort": ("/usr/bin/sort -n a|/usr/bin/sort", "/usr/bin/sort -o a|sort -n a|/usr/local/bin/sort -n"),
    "/bin/cat": ("/bin/cat a", "cat a|bin/cat a"),
    "bin/cat": ("bin/cat", "bin/cat a|bin/cat -n|/bin/cat a"),
    "./x *": ("./x a", "./x -a|./x a b|./x a=b"),
    "bin/git": ("bin/git", "bin/git log|bin/git status"),
    "python3.12 *": ("", "python3.12 a.py"),
    "sudo ls *": ("", "sudo ls a"),
    "cp *": ("cp a b|cp a", "cp -r a|cp --backup=x"),
    "my-tool run": ("my-tool run", "my-tool run x|my-tool run --out x|my-tool run -v|my-tool"),
    "my-tool * x": ("my-tool a x", "my-tool -a x|my-tool a x y|my-tool a=b x|my-tool @f x|my-tool +f x|my-tool :f x"),
    "cargo test": ("cargo test", "cargo test --config x|cargo test a|cargo +nightly test"),
    "make test": ("make test", "make test x|make test SHELL=x|make -f x test|make"),
    "make *": ("make a", "make -f x|make SHELL=x|make a b"),
    "python3 x.py": ("python3 x.py", "python3 x.py --y|python3 x.py a|python3 -i x.py"),
    "python3 x.py *": ("python3 x.py a", "python3 x.py --y|python3 x.py a b"),
    "python3 *": ("", "python3 a.py|python3 -c"),
    "python3 -m *": ("", "python3 -m x"),
    "sudo *": ("", "sudo reboot|sudo -i"),
    "bash *": ("", "bash x|bash -c"),
    "env": ("env", "env x|env -S x|env A=1"),
    "xargs *": ("", "xargs x"),
    "sh x.sh": ("sh x.sh", "sh x.sh a|sh -c x.sh"),
    "sed -n": ("sed -n", "sed -n 1w/x|sed -n -i|sed -n p a"),
    "awk": ("awk", "awk 'BEGIN{}'|awk -f x"),
    "git log | cat": ("", "git log cat|git log | cat|git log"),
}


@pytest.mark.parametrize(
    ("pattern", "line"), [(p, line) for p, (covered, _) in RULES.items() for line in covered.split("|") if line]
)
def test_what_is_harmless_is_covered(pattern: str, line: str) -> None:
    assert allowed(line, pattern)


def uncovered() -> list[tuple[str, str]]:
    split = [(p, others.replace(" | ", " \\0 ").split("|")) for p, (_, others) in RULES.items()]
    return [(p, line.replace(" \\0 ", " | ")) for p, lines in split for line in lines]


@pytest.mark.parametrize(("pattern", "line"), uncovered())
def test_what_writes_runs_or_sets_something_is_not(pattern: str, line: str) -> None:
    assert not allowed(line, pattern)


FILES = " ".join(f"f{n}" for n in range(200))
MANY = [
    "git log",
    "git show",
    "git add",
    "git grep x",
    "git ls-files",
    "cat",
    "cp",
    "sort",
    "diff",
    "file",
    "gzip",
    "rg x",
    "tree",
    "find",
]
NONE = [
    "git branch",
    "git tag",
    "git remote",
    "git stash",
    "git push",
    "git fetch",
    "git reflog",
    "git count-objects",
    "date",
    "hostname",
]
ONE = ["uniq", "xxd"]


@pytest.mark.parametrize(("program", "most"), [*((p, 200) for p in MANY), *((p, 0) for p in NONE), *((p, 1) for p in ONE)])
def test_a_program_gets_as_many_operands_as_do_no_harm(program: str, most: int) -> None:
    for count in (0, 1, 2, 3, 200):
        line = f"{program} {' '.join(FILES.split()[:count])}".strip()
        assert allowed(line, program) == (count <= most), line


OPTIONS = [(name, known) for name, known in arguments._PROGRAMS.items()]
OPTIONS += [(f"git {name}", known) for name, known in arguments._GIT.items()]


@pytest.mark.parametrize(("program", "known"), OPTIONS)
def test_options_that_are_known_are_covered_in_each_form_and_no_others(program: str, known: arguments.Harmless) -> None:
    """Short ones one by one, together, and with a value; long ones with and without; and a stranger among them never."""
    for flag in known.flags.replace("-", ""):
        assert allowed(f"{program} -{flag}", program)
    assert allowed(f"{program} -{known.flags} -{known.flags[::-1]}", program)
    strange = [c for c in string.ascii_letters if c not in known.flags + known.valued]
    for flag in strange:
        assert f"-{flag}" in known.words or not allowed(f"{program} -{flag}", program), flag
        assert not allowed(f"{program} -1{flag}", program), flag
    for flag in known.valued:
        for line in (f"-{flag}", f"-{flag}x", f"-{flag}-", f"-1{flag}{''.join(strange)}"):
            assert allowed(f"{program} {line}", program), line
    for word in known.words:
        assert allowed(f"{program} {word}", program)
        if word.startswith("--"):
            assert allowed(f"{program} {word}=x", program)
        assert not allowed(f"{program} {word}x{word}", program)


DANGEROUS = [
    "--output", "--ext-diff", "--textconv", "--exec", "--exec-path", "--upload-pack", "--receive-pack", "--config-env",
    "--git-dir", "--work-tree",
    "--open-files-in-pager", "--contents", "--template", "--separate-git-dir", "--paginate", "--show-signature",
]  # fmt: skip


@pytest.mark.parametrize("command", ["log", "diff", "blame", "branch"])
def test_no_abbreviation_of_an_option_that_does_harm_is_covered(command: str) -> None:
    for option in DANGEROUS:
        for length in range(5, len(option) + 1):
            for form in ("{}", "{}=x", "{} x", "x {}=x", "-- {}=x", "-1 {}", "'{}'"):
                short = option[:length]  # --text is an option of its own
                assert short == "--text" or not allowed(f"git {command} {form.format(short)}", f"git {command}")


@pytest.mark.skipif(shutil.which("git") is None, reason="no git here")
def test_what_is_covered_changes_nothing_when_a_real_git_runs_it(tmp_path: Path) -> None:
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "GIT_CONFIG_NOSYSTEM": "1", "GIT_PAGER": "cat"}
    place = tmp_path / "place"
    place.mkdir()

    def git(*arguments: str) -> None:
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run(["git", *arguments], cwd=place, env=environment, timeout=20, check=False, **quiet)

    git("init", "-q")
    (place / "a").write_text("1\n")
    git("add", "a")
    git("-c", "user.name=x", "-c", "user.email=x@y", "commit", "-qm", "one")
    git("status")  # it writes the index once

    def state() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    before, r, covered = state(), random.Random(3), 0
    values = ["=x", "=a", " x", " a", "x", "", "=.git/config", "=%H"]
    short = [f"-{letter}" for letter in (*"OocpnSLzGCXUMeqdD1", "pO", "nO")]
    options = [*DANGEROUS, *short, "--outp", "--ext", "--stat", "--format", "--oneline", "--grep", "--", "HEAD", "a", "--graph"]
    commands = ["log", "show", "diff", "status", "blame", "grep", "branch", "tag", "remote", "ls-files", "shortlog", "reflog"]
    for _ in range(runs(600)):
        line = f"git {r.choice(commands)} " + " ".join(r.choice(options) + r.choice(values) for _ in range(r.randint(1, 3)))
        if allowed(line, "git") and covered < runs(100):
            covered += 1
            git(*read_command(line).argv[1:])
            assert state() == before, line
    assert covered >= runs(30)
