"""What kinds of programs there are, for whoever must judge a command by its words."""

from __future__ import annotations

import re
from collections.abc import Sequence

from agent.text.shell_words import Word, is_assignment

# Programs that only start another one, and their short options that take a value.
WRAPPERS = {
    "sudo": "ugpCDhRrTU", "doas": "uC", "env": "uCS", "nice": "n", "ionice": "cn", "nohup": "", "setsid": "", "time": "fo",
    "xargs": "IELnPsda", "timeout": "ks", "stdbuf": "ioe", "chroot": "", "exec": "a", "command": "", "builtin": "",
    "busybox": "", "toybox": "", "watch": "n", "strace": "eop", "ltrace": "eop", "flock": "wE", "chrt": "", "taskset": "",
    "unshare": "", "nsenter": "t", "runuser": "ugG", "parallel": "jI", "script": "c", "su": "c", "ssh": "opilFJ",
    "eval": "", "trap": "", "coproc": "", "proot": "", "fakeroot": "", "systemd-run": "",
}  # fmt: skip
SHELLS = frozenset({"sh", "bash", "dash", "zsh", "ksh", "mksh", "ash", "fish", "csh", "tcsh", "rbash", "pwsh"})
INTERPRETERS = frozenset({
    "python", "pypy", "perl", "ruby", "node", "nodejs", "deno", "bun", "php", "lua", "luajit", "awk", "gawk", "mawk", "nawk",
    "Rscript", "julia", "tclsh", "guile",
})  # fmt: skip
# Words of a shell that stand before a command, and those that are one without doing anything.
OPENING = frozenset({"if", "then", "else", "elif", "do", "while", "until", "!", "{"})
CLOSING = frozenset({"fi", "done", "esac", "}"})

# Programs that only read, and write nowhere but to their output, whatever their arguments are.
READERS = frozenset({
    ":", "[", "arch", "b2sum", "basename", "cal", "cat", "cksum", "cmp", "comm", "cut", "df", "dirname", "du", "echo", "egrep",
    "expand", "expr", "false", "fgrep", "fold", "free", "getconf", "grep", "groups", "head", "id", "join", "ls", "lsblk", "lscpu",
    "md5sum", "nl", "nproc", "od", "paste", "pgrep", "printf", "ps", "pwd", "readlink", "realpath", "rev", "seq", "sha1sum",
    "sha256sum", "sha512sum", "sleep", "stat", "strings", "sum", "tac", "tail", "test", "tr", "true", "uname", "unexpand",
    "uptime", "users", "wc", "which", "who", "whoami",
})  # fmt: skip
# Programs that change files, but run nothing that an argument names; but for an option, perhaps.
CHANGERS = frozenset({
    "base64", "cd", "chgrp", "chmod", "chown", "cp", "date", "diff", "file", "gunzip", "gzip", "kill", "ln", "mkdir", "mktemp",
    "mv", "rm", "rmdir", "sort", "touch", "tree", "truncate", "uniq", "unlink", "xxd",
})  # fmt: skip
_EXEC = frozenset({"-exec", "-execdir", "-ok", "-okdir", "-x", "-X", "--exec", "--exec-batch"})
_NUMBERED = frozenset({"b2sum", "base64", "md5sum", "sha1sum", "sha256sum", "sha512sum"})


def base_name(program: str) -> str:
    """A program's name without its folders."""
    return program.rstrip("/").rsplit("/", 1)[-1]


def family(program: str) -> str:
    """A program's name without its folders and its version: ``python`` for ``/usr/bin/python3.12``."""
    name = base_name(program).removesuffix(".exe")
    return name if name in _NUMBERED else re.sub(r"(?<=[A-Za-z])-?[\d.]+$", "", name)


def starts(part: Sequence[Word]) -> list[int]:
    """Where programs surely stand: the first word, and the words behind those that only start another program."""
    found: list[int] = []
    i = 0
    while i < len(part):
        if is_assignment(part[i]) or part[i].text in OPENING:
            i += 1
            continue
        found.append(i)
        name = base_name(part[i].text)
        if name not in WRAPPERS:
            if name in ("find", "fd", "fdfind"):
                found += [j + 1 for j in range(i, len(part)) if part[j].text in _EXEC]
            break
        i += 1
        while i < len(part) and part[i].text.startswith("-"):
            i += 2 if len(part[i].text) == 2 and part[i].text[1] in WRAPPERS[name] else 1
        if name in ("timeout", "flock", "chroot", "chrt", "taskset", "ssh"):  # a number, a file or a host stands first
            i += 1
    return [i for i in found if i < len(part)]
