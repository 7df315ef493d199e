"""What decides what runs, by its name: neither a command nor a tool may write it. It is found, and set aside where it is new.

These are files that something acts upon by itself: git and other version control (configuration and hooks), Sprig, a Python that
is started as ``python``, a shell that enters the folder or logs in, an editor that opens it. What a person starts knowingly, as a
Makefile or a test, is not among them.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import unicodedata
from collections.abc import Iterator

_NAMES = frozenset({
    ".git", ".hg", ".jj", ".svn", ".bzr", ".gitconfig", ".githooks", ".husky", ".lefthook", ".pre-commit-config.yaml",
    "lefthook.yml", ".lefthook.yml", "lefthook.yaml", ".lefthook.yaml", ".overcommit.yml",
    ".sprig", ".venv", "venv", ".direnv", ".envrc", ".mise", ".mise.toml", "mise.toml", ".autoenv", ".autoenv.zsh",
    ".bashrc", ".bash_profile", ".bash_login", ".bash_logout", ".bash_aliases", ".profile",
    ".inputrc", ".zshrc", ".zshenv", ".zprofile", ".zlogin", ".zlogout", ".xprofile", ".xinitrc", ".xsession", ".xsessionrc",
    ".pam_environment", ".ssh", ".gnupg", ".netrc", ".npmrc", ".yarnrc", ".yarnrc.yml", ".pypirc", ".cargo", ".gdbinit",
    ".lldbinit", ".vimrc", ".gvimrc", ".exrc", ".nvimrc", ".nvim.lua", ".vim", ".emacs", ".emacs.d", ".dir-locals.el",
    ".vscode", ".idea", ".fleet", ".zed", ".devcontainer", ".termux", "sitecustomize.py", "usercustomize.py", "pyvenv.cfg",
})  # fmt: skip
_INSIDE = {
    ".config": frozenset({
        "autostart", "systemd", "environment.d", "fish", "git", "nvim", "mise", "direnv", "pip", "nushell", "plasma-workspace",
        "xonsh", "hg", "jj",
    }),
    ".local": frozenset({"bin", "lib"}),
}  # fmt: skip
_REPOSITORY = frozenset({"HEAD", "objects", "refs"})  # with these git takes any folder for a repository, whatever its name
MOST_ENTRIES = 20_000  # that are looked at, the shallow ones first
_SUFFIX = ".set-aside"
_ELSEWHERE = re.compile(rb"^\s*(?:gitdir:|hookspath\s*=|path\s*=)\s*\"?([^\"\r\n]+)", re.IGNORECASE | re.MULTILINE)

Found = dict[str, tuple[int, int]]  # paths, each with the device and number of its inode


def is_protected(parts: tuple[str, ...]) -> bool:
    """Whether one of a path's components decides what runs, also where a file system takes more than one spelling for it."""
    folded = [_folded(part) for part in parts]
    inside = any(name in _INSIDE.get(folder, ()) for folder, name in itertools.pairwise(folded))
    return inside or any(part in _NAMES or part == "git~1" for part in folded)


def _folded(part: str) -> str:
    """A name as the most forgiving file systems take it: no case, no invisible characters (HFS+), no stream or dots (NTFS)."""
    seen = part if part.isascii() else "".join(c for c in part if unicodedata.category(c) != "Cf")
    return seen.casefold().partition(":")[0].rstrip(". ")


def is_named_by_git(folder: str, path: str) -> bool:
    """Whether the ``.git`` of a folder names this path, or one around it, as a place of its own."""
    named = (other for other in _named_by(f"{folder}/.git") if other.startswith(folder.rstrip("/") + "/"))
    return any(path == other or path.startswith(other + "/") for other in named)


def is_repository(folder: str) -> bool:
    """Whether git takes a folder for a repository that has no work tree around it."""
    return all(os.path.lexists(f"{folder}/{name}") for name in _REPOSITORY)


def find(folder: str) -> Found:
    """What is protected below a folder, links among it, and also where git is told to look for its own and for hooks."""
    found: Found = {}
    named = [path for path in _walk(folder) if _add(found, path)]
    for path in itertools.chain.from_iterable(map(_named_by, named)):
        if path.startswith(folder.rstrip("/") + "/"):
            _add(found, path)
    return found


def _add(found: Found, path: str) -> bool:
    with contextlib.suppress(OSError):
        status = os.lstat(path)
        found[path] = (status.st_dev, status.st_ino)
    return path in found


def _walk(folder: str) -> Iterator[str]:
    waiting, seen = [folder], 0
    for place in waiting:  # it grows meanwhile
        parent = (os.path.basename(place),)  # noqa: PTH119  (pathlib would double the time)
        try:
            entries = list(os.scandir(place))
        except OSError:
            continue
        if place != folder and {entry.name for entry in entries} >= _REPOSITORY:
            yield place
            continue
        for entry in entries:
            if is_protected((*parent, entry.name)):
                yield entry.path
            elif entry.is_dir(follow_symlinks=False):
                waiting.append(entry.path)
        seen += len(entries)
        if seen > MOST_ENTRIES:
            return


def _named_by(path: str) -> Iterator[str]:
    """Where a link leads, and the paths that a .git, a folder or a file, names, from the work tree and from the repository."""
    if os.path.islink(path):  # noqa: PTH114
        yield os.path.realpath(path)
    config, tree = path, os.path.dirname(path)  # noqa: PTH120
    if os.path.isdir(path):  # noqa: PTH112
        config = f"{path}/config"
    elif os.path.basename(path).casefold() != ".git":  # noqa: PTH119
        return
    with contextlib.suppress(OSError), open(config, "rb") as f:  # noqa: PTH123
        for match in _ELSEWHERE.finditer(f.read(1 << 16)):
            named = os.fsdecode(match[1].strip())
            yield from (os.path.normpath(os.path.join(base, named)) for base in (tree, path))  # noqa: PTH118


def set_aside(folder: str, before: Found) -> list[str]:
    """Give what is protected and is not one of those of before a name under which nothing acts upon it.

    Returns:
        The old paths, from ``folder`` on, with a slash behind those of repositories of which only HEAD was renamed.
    """
    done: list[str] = []
    known = {*before.values()}  # also where a folder around it was moved
    for path, inode in find(folder).items():
        if inode in known:
            continue
        bare = not is_protected((os.path.basename(os.path.dirname(path)), os.path.basename(path)))  # noqa: PTH119, PTH120
        target = path + "/HEAD" if bare else path
        with contextlib.suppress(OSError):
            os.rename(target, _free(target))  # noqa: PTH104
            done.append(os.path.relpath(path, folder) + ("/" if bare else ""))
    return done


def _free(path: str) -> str:
    name, number = path + _SUFFIX, 1
    while os.path.lexists(name):
        number += 1
        name = f"{path}{_SUFFIX}-{number}"
    return name
