"""Where programs stand in a simple command, behind whatever only starts them."""

from __future__ import annotations

import pytest

from agent.approval.programs import base_name, family, starts
from agent.text.command_line import read_command

# A command -> the programs in it, in order.
PROGRAMS = {
    "rm x": "rm", "/bin/rm rm": "/bin/rm", "A=1 B+=2 rm x": "rm", "A=1": "", "if ! rm x": "rm", "{ while rm x": "rm", "then": "",
    "sudo rm x": "sudo rm", "sudo -u bob -g staff -n rm x": "sudo rm", "sudo -ubob rm x": "sudo rm", "sudo -nu rm x": "sudo rm",
    "sudo --user=bob rm x": "sudo rm", "sudo": "sudo", "sudo -u": "sudo", "sudo -u bob": "sudo", "sudo A=1 rm x": "sudo rm",
    "/usr/bin/sudo -u a env -u B C=1 nice -n 5 rm x": "/usr/bin/sudo env nice rm", "nice -n5 rm x": "nice rm",
    "nice - rm x": "nice rm", "nohup -n rm x": "nohup rm", "xargs -n 1 -I % rm x": "xargs rm", "exec -a x rm": "exec rm",
    "timeout 5 rm x": "timeout rm", "timeout -k 1 -s KILL 5 rm x": "timeout rm", "timeout 5": "timeout",
    "flock -w 1 f rm x": "flock rm", "chroot d rm x": "chroot rm", "chrt 1 rm x": "chrt rm", "taskset 1 rm x": "taskset rm",
    "ssh -p 1 host rm x": "ssh rm", "ssh host sudo rm": "ssh sudo rm", "nohup 5 rm": "nohup 5",
    "find . -name x": "find", "find . -exec rm x \\; -ok mv y \\;": "find rm mv", "find . -execdir rm -okdir mv": "find rm mv",
    "fd x -x rm": "fd rm", "fdfind x --exec-batch rm": "fdfind rm", "find . -exec": "find",
    "sudo find . -exec rm x": "sudo find rm",
    "-exec find . -exec rm": "-exec", "ls -exec rm": "ls",
}  # fmt: skip


@pytest.mark.parametrize("line", PROGRAMS)
def test_programs_are_found_behind_those_that_start_them(line: str) -> None:
    (part,) = read_command(line).parts
    assert [part[i].text for i in starts(part)] == PROGRAMS[line].split()


@pytest.mark.parametrize(
    ("program", "base", "kind"),
    [
        ("rm", "rm", "rm"),
        ("/usr/bin/rm", "rm", "rm"),
        ("./rm/", "rm", "rm"),
        ("/usr/bin/python3.12", "python3.12", "python"),
        ("python-3", "python-3", "python"),
        ("a/python.exe", "python.exe", "python"),
        ("sha256sum", "sha256sum", "sha256sum"),
        ("base64", "base64", "base64"),
        ("lua5.4", "lua5.4", "lua"),
        ("7", "7", "7"),
        ("x_3", "x_3", "x_3"),
    ],
)
def test_a_program_has_a_name_without_folders_and_one_without_its_version(program: str, base: str, kind: str) -> None:
    assert (base_name(program), family(program)) == (base, kind)
