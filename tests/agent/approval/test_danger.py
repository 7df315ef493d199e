"""What deserves a look in a command: each place with its reason, and nothing beside it."""

from __future__ import annotations

import pytest

from agent.approval.danger import command_risks

DELETES, FOLDERS, OVERWRITES = "deletes files", "deletes whole folders", "can overwrite files"
RIGHTS, SHELL, PROGRAM = "changes rights of whole folders", "runs text as shell commands", "runs program text"
SOFTWARE, UNPACKS, WRITES = "installs or runs other people's software", "can unpack over files", "writes a file"
PRIVATE, SYSTEM, OUTSIDE = "names private or start-up files", "names a device or the system's own files", "outside the root"
ALL, GIT, AFTER = "runs with all rights", "sets what git runs", "runs what the command before it gives out"
SENDS, EACH, DATA = "sends commits away", "runs a command on each file", "sends or receives data"
OWNERS = "changes who owns files"

# A line -> the places that are pointed out, in order, as "place: why".
POINTED: dict[str, list[tuple[str, str]]] = {
    "rm x": [("rm", DELETES)], "rmdir x": [("rmdir", DELETES)], "unlink -x y": [("unlink", DELETES)],
    "rm -r x": [("rm", FOLDERS)], "rm x -vRf": [("rm", FOLDERS)], "rm --recursive x": [("rm", FOLDERS)],
    "ls; /bin/rm x": [(";", "a second command"), ("/bin/rm", DELETES)],
    "sudo rm x": [("sudo", ALL), ("rm", DELETES)], "doas -u bob ls": [("doas", ALL)],
    "chmod 600 x": [], "chmod -R 600 x": [("chmod", RIGHTS)], "chgrp --recursive a x": [("chgrp", RIGHTS)],
    "setfacl -vR x": [("setfacl", RIGHTS)], "chown a x": [("chown", OWNERS)], "ls -R": [],
    "chown -R a x": [("chown", RIGHTS), ("chown", OWNERS)],
    "mv a b": [("mv", OVERWRITES)], "cp a b": [("cp", OVERWRITES)], "ln a b": [("ln", OVERWRITES)],
    "install a b": [("install", OVERWRITES)], "tee a": [("tee", OVERWRITES)],
    "sed -n p a": [], "sed s/-i/x/ a": [], "sed --in-place p a": [("sed", OVERWRITES)], "sed p -i.old a": [("sed", OVERWRITES)],
    "grep -i x a": [], "nl --in-place a": [],
    "pip list": [], "pip -q install x": [("pip", SOFTWARE)], "npx x": [("npx", SOFTWARE)], "uv": [("uv", SOFTWARE)],
    "dpkg -i x.deb": [("dpkg", SOFTWARE)], "pacman -Syu": [("pacman", SOFTWARE)], "pacman -Q": [], "make install": [],
    "git log": [], "git push x": [("push", SENDS)], "git -C sub push reset": [("push", SENDS)], "echo push": [],
    "git reset x": [("reset", "can throw work away")],
    "git -c a.b=c log": [("-c", GIT)], "git log --exec=x": [("--exec=x", GIT)], "git fetch --upload-pack x": [
        ("fetch", "fetches from elsewhere"), ("--upload-pack", GIT)], "tr -c a b": [], "git log -cx": [],
    "find . -name x": [], "find . -exec ls ;": [("-exec", EACH), (";", "a second command")], "ls -exec": [],
    "find a -delete -fls x": [("-delete", DELETES), ("-fls", WRITES)],
    "sh x.sh": [], "bash --norc x": [], "sh -c ls": [("sh", SHELL)], "bash -lc ls": [("bash", SHELL)], "grep -c x a": [],
    "python3 x.py": [], "python3 -m x": [("python3", PROGRAM)], "perl -ne1 a": [], "perl -e1": [("perl", PROGRAM)],
    "php -r x": [("php", PROGRAM)], "node -c x": [("node", PROGRAM)], "awk 1 a": [("awk", PROGRAM)],
    "gawk -f a b": [("gawk", PROGRAM)], "/usr/bin/python3.12 -c x": [("/usr/bin/python3.12", PROGRAM)], "hawk x": [],
    "tar tf a": [("tar", UNPACKS)], "unzip a": [("unzip", UNPACKS)], "cpio -i": [("cpio", UNPACKS)], "gzip a": [],
    "sort a -o b": [("-o", WRITES)], "sort -n a": [], "gcc a -ob": [("-ob", WRITES)], "ls -o": [], "make --out=x": [("--out=x",
    WRITES)],
    "wget -O x y": [("wget", "receives data"), ("-O", WRITES)], "make -output x": [("-output", WRITES)], "make --outer x": [],
    "mkfs.ext4 x": [("mkfs.ext4", "formats a disk")], "mkfsx x": [], "reboot": [("reboot", "restarts the machine")],
    "echo reboot": [], "nohup reboot": [("reboot", "restarts the machine")], "/usr/bin/ls a": [],
    "cat /etc/x": [("/etc/x", OUTSIDE)], "cat ~/x": [("~/x", OUTSIDE)], "cat a/../../x": [("a/../../x", OUTSIDE)],
    "cat a..b": [], "cat a/b ../c": [("../c", OUTSIDE)], "cat --x=/etc/y": [("--x=/etc/y", OUTSIDE)], "cat x=/etc/y": [],
    "cat -x": [], "cat .ssh/a": [(".ssh/a", PRIVATE)], "cat a/.env": [("a/.env", PRIVATE)], "cat a.env": [], "cat .envy": [],
    "cat --x=.bashrc": [("--x=.bashrc", PRIVATE)], "cat /dev/null": [("/dev/null", SYSTEM)], "cat /proc/1": [("/proc/1", SYSTEM)],
    "cat /boot": [("/boot", SYSTEM)], "cat dev/x": [],
    "ls > /etc/x": [(">", "a redirection"), ("/etc/x", OUTSIDE)], "ls < a": [("<", "a redirection")],
    "ls # sudo rm": [], "ls &": [("&", "a background job")], "ls | wc": [("|", "a pipe")],
    "ls | sh": [("|", "a pipe")], "cat a | grep b": [("|", "a pipe")], "sh a | cat b": [("|", "a pipe")],
    "cat a | sh -s": [("|", "a pipe"), ("sh", AFTER)], "echo a | nohup python3 b": [("|", "a pipe"), ("nohup", AFTER)],
    "nice curl x | perl": [("curl", DATA), ("|", "a pipe"), ("perl", AFTER)],
    "ls 'x": [("ls 'x", "cannot be read: a quote does not end")],
    "rm x; rm x": [("rm", DELETES), (";", "a second command"), ("rm", DELETES)],
}  # fmt: skip


@pytest.mark.parametrize("line", POINTED)
def test_each_place_is_pointed_out_with_its_reason_and_nothing_else(line: str) -> None:
    risks = command_risks(line)
    assert [(line[risk.start : risk.end], risk.why) for risk in risks] == POINTED[line]
    assert list(risks) == sorted(risks, key=lambda risk: (risk.start, risk.end, risk.why))


def test_two_commands_that_are_alike_are_pointed_out_where_each_stands() -> None:
    assert [(risk.start, risk.end) for risk in command_risks("rm x; rm x")] == [(0, 2), (4, 5), (6, 8)]
