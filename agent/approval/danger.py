"""What deserves a second look in a command, before a person says yes. A help for the eye, not a wall: that is the sandbox."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from agent.approval.programs import INTERPRETERS, SHELLS, base_name, family, starts
from agent.text.command_line import read_command
from agent.text.shell_words import CommandLine, Word


@dataclass(frozen=True, slots=True)
class Risk:
    """Characters ``start`` to ``end`` of a text, and why they deserve a look."""

    start: int
    end: int
    why: str


_PROGRAMS = {
    "dd": "writes raw data to files or devices", "mkfs": "formats a disk", "fdisk": "changes a disk's partitions",
    "parted": "changes a disk's partitions", "wipefs": "erases a disk's signatures", "shred": "destroys files",
    "shutdown": "turns the machine off", "reboot": "restarts the machine", "poweroff": "turns the machine off",
    "halt": "turns the machine off", "mount": "changes what is mounted", "umount": "changes what is mounted",
    "kill": "ends processes", "killall": "ends processes", "pkill": "ends processes", "chown": "changes who owns files",
    "crontab": "runs something later", "at": "runs something later", "systemctl": "changes services",
    "service": "changes services", "iptables": "changes the firewall", "nft": "changes the firewall",
    "ufw": "changes the firewall", "passwd": "changes a password", "useradd": "changes users", "usermod": "changes users",
    "userdel": "changes users", "insmod": "changes the kernel", "modprobe": "changes the kernel", "su": "becomes another user",
    "nc": "sends or receives data", "ncat": "sends or receives data", "netcat": "sends or receives data",
    "socat": "sends or receives data", "scp": "copies to or from another machine",
    "rsync": "copies files, perhaps to another machine", "ssh": "runs something on another machine", "sftp": "copies files",
    "ftp": "copies files", "telnet": "talks to another machine", "curl": "sends or receives data", "wget": "receives data",
    "truncate": "empties files", "eval": "runs text as a command", "source": "runs a file as commands",
    "docker": "runs containers, which may reach everything", "podman": "runs containers", "adb": "controls another device",
    "termux-sms-send": "sends a message", "termux-telephony-call": "makes a call", "am": "starts Android activities",
}  # fmt: skip
_PACKAGES = {
    "apt": "install", "apt-get": "install", "dpkg": "-i", "pkg": "install", "dnf": "install", "yum": "install", "pacman": "-S",
    "apk": "add", "zypper": "install", "brew": "install", "snap": "install", "flatpak": "install", "pip": "install",
    "pip3": "install", "pipx": "install", "uv": "", "npm": "install", "npx": "", "yarn": "", "pnpm": "", "gem": "install",
    "cargo": "install", "go": "install", "conda": "install",
}  # fmt: skip
_GIT = {
    "push": "sends commits away", "reset": "can throw work away", "clean": "deletes files", "checkout": "can overwrite work",
    "restore": "can overwrite work", "rebase": "rewrites history", "filter-branch": "rewrites history",
    "gc": "deletes old objects", "config": "changes what git runs", "remote": "changes where git sends",
    "submodule": "fetches other code", "clone": "fetches other code", "pull": "fetches and merges",
    "fetch": "fetches from elsewhere", "branch": "can delete branches", "stash": "moves work away",
}  # fmt: skip
_FIND = {"-exec": "runs a command on each file", "-execdir": "runs a command on each file", "-ok": "runs a command on each file"}
_FIND |= {"-delete": "deletes files", "-fprint": "writes a file", "-fls": "writes a file", "-fprintf": "writes a file"}
_RECURSIVE = re.compile(r"-[a-zA-Z]*R[a-zA-Z]*|--recursive")
_GIT_RUNS = re.compile(r"-c$|--config|--exec|--upload-pack|--receive-pack")
_WRITING = re.compile(r"--?(?:output|out|out-file|output-document|log-file|dest|destination)(?:=.*)?")


def command_risks(command: str) -> tuple[Risk, ...]:
    """The risky places of a command, in order."""
    line = read_command(command)
    found = [Risk(o.start, o.end, o.what) for o in line.operators if o.what != "a comment"]
    for part in line.parts:
        found += _part(part)
    found += [_at(w, why) for w in line.files if (why := _outside(w.text))]
    found += _pipes_to_shell(line)
    if line.broken:
        found.append(Risk(0, len(command), f"cannot be read: {line.broken}"))
    return tuple(sorted(set(found), key=lambda r: (r.start, r.end, r.why)))


def _part(words: Sequence[Word]) -> list[Risk]:
    found = []
    for i in starts(words):
        word, rest = words[i], words[i + 1 :]
        name = base_name(word.text)
        texts = [w.text for w in rest]
        if name in ("sudo", "doas"):
            found.append(_at(word, "runs with all rights"))
        if name in _PROGRAMS or name.startswith("mkfs."):
            found.append(_at(word, _PROGRAMS.get(name, "formats a disk")))
        found += _options(name, word, rest, texts)
    found += [_at(w, why) for w in words[1:] if (why := _outside(w.text))]
    return found


def _options(name: str, word: Word, rest: Sequence[Word], texts: Sequence[str]) -> list[Risk]:
    found: list[Risk] = []
    if name in ("rm", "rmdir", "unlink"):
        recursive = any(re.fullmatch(r"-[a-zA-Z]*[rR][a-zA-Z]*|--recursive", t) for t in texts)
        found.append(_at(word, "deletes whole folders" if recursive else "deletes files"))
    if name in ("chmod", "chown", "chgrp", "setfacl") and any(map(_RECURSIVE.fullmatch, texts)):
        found.append(_at(word, "changes rights of whole folders"))
    in_place = any(t.startswith(("-i", "--in-place")) for t in texts)
    if name in ("mv", "cp", "ln", "install", "tee") or (name == "sed" and in_place):
        found.append(_at(word, "can overwrite files"))
    if name in _PACKAGES and (not _PACKAGES[name] or any(t.startswith(_PACKAGES[name]) for t in texts)):
        found.append(_at(word, "installs or runs other people's software"))
    if name == "git":
        found += [_at(w, _GIT[w.text]) for w in rest[:6] if w.text in _GIT][:1]
        found += [_at(w, "sets what git runs") for w in rest if _GIT_RUNS.match(w.text)]
    if name == "find":
        found += [_at(w, _FIND[w.text]) for w in rest if w.text in _FIND]
    if name in SHELLS and any(re.fullmatch(r"-[a-z]*c", t) for t in texts):
        found.append(_at(word, "runs text as shell commands"))
    text_given = family(name).endswith("awk") or any(t[:2] in ("-c", "-e", "-m", "-r") for t in texts)
    if family(name) in INTERPRETERS and text_given:
        found.append(_at(word, "runs program text"))
    if name in ("tar", "unzip", "cpio"):
        found.append(_at(word, "can unpack over files"))
    found += [_at(w, "writes a file") for w in rest if _WRITING.fullmatch(w.text)]
    if name in ("sort", "gcc", "cc", "curl", "wget", "split", "tree"):
        found += [_at(w, "writes a file") for w in rest if re.match(r"-[oO]", w.text)]
    return found


def _outside(text: str) -> str:
    value = text.partition("=")[2] if text.startswith("-") and "=" in text else text
    if re.search(r"(^|/)\.(ssh|gnupg|aws|netrc|env|git-credentials|config|bashrc|profile|zshrc)(/|$|_)", value):
        return "names private or start-up files"
    if value.startswith(("/dev/", "/proc/", "/sys/", "/boot")):
        return "names a device or the system's own files"
    if value.startswith(("/", "~")) or ".." in value.split("/"):
        return "outside the root"
    return ""


def _pipes_to_shell(line: CommandLine) -> Iterator[Risk]:
    for before, after in itertools.pairwise(line.parts):
        fetched = {base_name(before[i].text) for i in starts(before)} & {"curl", "wget", "base64", "xxd", "printf", "echo", "cat"}
        if fetched and any(_runs_text(after[i].text) for i in starts(after)):
            yield Risk(after[0].start, after[0].end, "runs what the command before it gives out")


def _runs_text(program: str) -> bool:
    return base_name(program) in SHELLS or family(program) in INTERPRETERS


def _at(word: Word, why: str) -> Risk:
    return Risk(word.start, word.end, why)
