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
import stat
import unicodedata
from collections.abc import Iterator, Set

_NAMES = frozenset({
    ".git", ".hg", ".jj", ".svn", ".bzr", ".gitconfig", ".githooks", ".husky", ".lefthook", ".pre-commit-config.yaml",
    "lefthook.yml", ".lefthook.yml", "lefthook.yaml", ".lefthook.yaml", ".overcommit.yml", ".sprig", ".venv", "venv",
    ".direnv", ".envrc", ".mise", ".mise.toml", "mise.toml", "mise.local.toml", ".mise.local.toml", ".autoenv",
    ".autoenv.zsh", ".bashrc", ".bash_profile", ".bash_login", ".bash_logout", ".bash_aliases", ".profile", ".inputrc",
    ".zshrc", ".zshenv", ".zprofile", ".zlogin", ".zlogout", ".xprofile", ".xinitrc", ".xsession", ".xsessionrc",
    ".pam_environment", ".ssh", ".gnupg", ".netrc", ".npmrc", ".yarnrc", ".yarnrc.yml", ".pypirc", ".cargo", ".gdbinit",
    ".lldbinit", ".rprofile", ".pdbrc", ".irbrc", ".kshrc", ".cshrc", ".tcshrc", ".login", ".vimrc", ".gvimrc", ".exrc",
    ".nvimrc", ".nvim.lua", ".vim", ".emacs", ".emacs.d", ".dir-locals.el", ".vscode", ".idea", ".fleet", ".zed", ".helix",
    ".cursor", ".claude", ".mcp.json", ".devcontainer", ".termux", "sitecustomize.py", "usercustomize.py", "pyvenv.cfg",
})  # fmt: skip
_INSIDE = {
    ".config": frozenset({
        "autostart", "systemd", "environment.d", "fish", "git", "nvim", "mise", "direnv", "pip", "nushell", "plasma-workspace",
        "xonsh", "hg", "jj", "helix", "sway", "i3", "hypr", "emacs", "tmux", "kitty",
    }),
    ".local": frozenset({"bin", "lib"}),
    "share": frozenset({"sprig", "systemd", "dbus-1"}),
}  # fmt: skip
# What makes a repository without a work tree, and what it acts upon; the rest of it may be written.
OF_REPOSITORY = ("HEAD", "config", "config.worktree", "hooks", "commondir")
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
    try:
        return _is_repository(set(os.listdir(folder)))  # noqa: PTH208
    except OSError:
        return False


def _is_repository(names: Set[str]) -> bool:
    """Whether git takes a folder with these entries for a repository, whatever its name; a commondir names the rest of one."""
    return "HEAD" in names and ("commondir" in names or names >= {"objects", "refs"})


def find(folder: str, own: str = "", *, forced: bool = False) -> Found:
    """What is protected below a folder, links among it, and also where git is told to look for its own and for hooks.

    ``own`` is Sprig's home, which is protected where it lies below. ``forced`` looks also where the right to look was taken away.
    """
    found: Found = {}
    if own.startswith(folder.rstrip("/") + "/"):
        _add(found, own)
    named = [path for path in _walk(folder, forced) if _add(found, path)]
    for path in itertools.chain.from_iterable(map(_named_by, named)):
        if path.startswith(folder.rstrip("/") + "/"):
            _add(found, path)
    return found


def _add(found: Found, path: str) -> bool:
    with contextlib.suppress(OSError):
        status = os.lstat(path)
        found[path] = (status.st_dev, status.st_ino)
    return path in found


def _walk(folder: str, forced: bool) -> Iterator[str]:
    waiting, seen = [folder], 0
    for place in waiting:  # it grows meanwhile
        parent = (os.path.basename(place),)  # noqa: PTH119  (pathlib would double the time)
        try:
            entries = _entries(place, forced)
        except OSError:
            continue
        if _is_repository({entry.name for entry in entries}):
            if place != folder:
                yield place
                continue
            yield from (f"{place}/{name}" for name in OF_REPOSITORY)
        for entry in entries:
            if is_protected((*parent, entry.name)):
                yield entry.path
            elif entry.is_dir(follow_symlinks=False):
                waiting.append(entry.path)
        seen += len(entries)
        if seen > MOST_ENTRIES:
            return


def _entries(folder: str, forced: bool) -> list[os.DirEntry[str]]:
    try:
        return list(os.scandir(folder))
    except PermissionError:
        if not forced:
            raise
        _let_change(folder)
        return list(os.scandir(folder))


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
    places = [folder]
    for place in places:  # it grows: what has another name is looked into, since its name protects nothing in it any more
        for path, inode in find(place, forced=True).items():
            parent, name = os.path.split(path)
            if inode in known or (parent == place != folder and name in OF_REPOSITORY):
                continue
            named = is_protected((os.path.basename(parent), name)) or (name in OF_REPOSITORY and is_repository(parent))  # noqa: PTH119
            bare = not named and os.path.isdir(path) and is_repository(path)  # noqa: PTH112
            with contextlib.suppress(OSError):
                renamed = _rename(path + "/HEAD" if bare else path)
                done.append(os.path.relpath(path, folder) + ("/" if bare else ""))
                places += [path] if bare else [renamed] if not os.path.islink(renamed) else []  # noqa: PTH114
    return done


def _rename(path: str) -> str:
    """Set a path aside, also where the command took from the folder around it the right to be changed; its new name."""
    name = _free(path)
    try:
        os.rename(path, name)  # noqa: PTH104
    except PermissionError:
        _let_change(os.path.dirname(path))  # noqa: PTH120
        os.rename(path, name)  # noqa: PTH104
    return name


def _let_change(folder: str) -> None:
    os.chmod(folder, stat.S_IMODE(os.lstat(folder).st_mode) | 0o700)  # noqa: PTH101


def _free(path: str) -> str:
    name, number = path + _SUFFIX, 1
    while os.path.lexists(name):
        number += 1
        name = f"{path}{_SUFFIX}-{number}"
    return name
