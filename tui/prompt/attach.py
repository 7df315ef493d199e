"""Files that are named in a message with ``@path``: read, put behind what was typed, and found again in a stored message.

What the model reads is what was typed, then each file as

    [file: NAME]
    content
    [end of file: NAME]

with an empty line before it. A content that has the last line in it gets a number in both marks that it has not.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import re
import stat
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.files import human_size
from agent.text import display

MOST_OF_A_FILE = 200_000  # bytes
MOST_IN_ALL = 400_000  # bytes
_MOST_FILES = 50

# At the start of a word only, so that a mail address does not count; a path with spaces is quoted.
_MENTION = re.compile(r"""(?:(?<=\s)|(?<=[(\[{<'"`])|^)@(?:"(?P<quoted>[^"\n]+)"|(?P<bare>[^\s"@][^\s"]*))""", re.MULTILINE)
_AFTER_A_PATH = ".,;:!?)]}>'`"
_NUMBERED = re.compile(r"(?P<name>.*) #\d+", re.DOTALL)
_HEAD = "\n\n[file: "


@dataclass(frozen=True, slots=True)
class Attachment:
    """A text file: its ``name`` as it was typed, safe to print, and its ``content``."""

    name: str
    content: str


@dataclass(frozen=True, slots=True)
class Attached:
    """A message with its files.

    Attributes:
        text: what the model reads.
        files: the text files in it.
        cuts: of files that are longer than what may go along, a line each.
        images: paths of the pictures, absolute.
        problems: lines for the person; while there are any, the message should not be sent.
    """

    text: str
    files: tuple[Attachment, ...] = ()
    cuts: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


class _Refused(Exception):
    """A file cannot go with the message; ``str`` is the line for the person."""


def attached(text: str, root: Path, sees_images: bool, completed: Collection[str] = ()) -> Attached:
    """Read the files that a message names. Never raises, never opens anything but regular files.

    Args:
        text: what was typed.
        root: relative paths start here.
        sees_images: whether the model can see pictures.
        completed: paths that were taken from a list: if such a file is gone, that is a problem, and not just a word with an @.
    """
    files: list[Attachment] = []
    images: list[str] = []
    cuts: list[str] = []
    problems: list[str] = []
    left = MOST_IN_ALL
    for name, path in _mentioned(text, root, completed, problems):
        if len(files) + len(images) == _MOST_FILES:
            problems.append(f"more than {_MOST_FILES} files are named: send them in several messages")
            break
        try:
            content, cut = _read(name, path, min(left, MOST_OF_A_FILE))
        except _Refused as e:
            problems.append(str(e))
            continue
        if content is not None:
            files.append(Attachment(name, content))
            left = max(0, left - len(content.encode()))
            cuts += [cut] if cut else []
        elif sees_images:
            images.append(str(path.absolute()))
        else:
            problems.append(f"this model cannot see pictures: {name} was not sent; without the @ its name can be")
    return Attached(with_files(text, files), tuple(files), tuple(cuts), tuple(images), tuple(problems))


def mention(path: str) -> str:
    """A path as it is written in a message: ``@src/a.py``, ``@"my file.txt"``."""
    return f'@"{path}"' if any(c.isspace() for c in path) else f"@{path}"


def _mentioned(text: str, root: Path, completed: Collection[str], problems: list[str]) -> Iterator[tuple[str, Path]]:
    """Each file once, in the order of the text: its name, safe to print, and where it is. Folders stay words."""
    seen: set[Path] = set()
    for found in _MENTION.finditer(text):
        quoted = found["quoted"]
        name, path = (quoted, _place(quoted, root)) if quoted else _bare(found["bare"], root)
        if path is None:
            if quoted or name in completed or _is_meant_as_path(name, root):
                problems.append(f"there is no file {display(name)} in {display(str(root))}: correct it, or take out its @")
            continue
        same = Path(os.path.realpath(path))
        if same not in seen and not path.is_dir():
            seen.add(same)
            yield display(name), path


def _bare(word: str, root: Path) -> tuple[str, Path | None]:
    """What of a word is the path: "a.py," and "a.py)." are both a.py, unless there is a file of that very name."""
    name = word
    while name:
        if (path := _place(name, root)) is not None:
            return name, path
        if name[-1] not in _AFTER_A_PATH:
            break
        name = name[:-1]
    return word.rstrip(_AFTER_A_PATH), None


def _place(name: str, root: Path) -> Path | None:
    with contextlib.suppress(OSError, ValueError, RuntimeError):  # RuntimeError: a home that nobody has
        path = root / Path(name).expanduser()
        path.stat()
        return path
    return None


def _is_meant_as_path(name: str, root: Path) -> bool:
    """@types/node and @me.at.home are words; ./a, ~/a, /tmp/a and a path into a folder that exists are not."""
    first, slash, rest = name.partition("/")
    return bool(slash and rest) and (first in ("", ".", "..") or first.startswith("~") or _place(first, root) is not None)


def _read(name: str, path: Path, most: int) -> tuple[str | None, str]:
    """The text of a file, cut to ``most`` bytes, and a line about that; None if it is a picture. Raises _Refused."""
    try:
        # Looked at before it is opened: opening a device can already do something, a pipe waits for its other end.
        if not stat.S_ISREG(path.stat().st_mode):
            raise _Refused(f"{name} is not a file but a device or a pipe: it was not read")
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            info = os.fstat(fd)
            if not stat.S_ISREG(info.st_mode):
                raise _Refused(f"{name} is not a file but a device or a pipe: it was not read")
            head = file.read(32)
            if _is_image(head):
                return None, ""
            data = head + file.read(max(0, MOST_OF_A_FILE + 1 - len(head)))
    except OSError as e:
        raise _Refused(f"{name} cannot be read: {e.strerror or 'the system refused'}") from None
    return _text(name, data, max(len(data), info.st_size), most)


def _is_image(head: bytes) -> bool:
    if head[:4] == b"RIFF":
        return head[8:12] == b"WEBP"
    return head.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a"))


def _text(name: str, data: bytes, size: int, most: int) -> tuple[str, str]:
    kept = data if size <= most else _whole_lines(data[:most])
    try:
        content = kept.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise _Refused(f"{name} is not a text in UTF-8: it was not sent") from None
    if "\0" in content:
        raise _Refused(f"{name} is no text: it was not sent")
    content = content.replace("\r\n", "\n").removesuffix("\n")
    if size <= most:
        return content, ""
    note = f"[cut here: {human_size(len(kept))} of {human_size(size)} were sent]"
    return f"{content}\n{note}" if content else note, f"{name} is cut: {human_size(len(kept))} of {human_size(size)} go along"


def _whole_lines(data: bytes) -> bytes:
    """Up to the last line's end or, where a line is all there is, up to the last whole character."""
    end = data.rfind(b"\n") + 1
    if not end:
        try:
            _, end = codecs.utf_8_decode(data, "strict", False)
        except UnicodeDecodeError:  # no text at all
            return data
    return data[:end]


def with_files(typed: str, files: Sequence[Attachment]) -> str:
    """What the model reads; ``split`` takes it apart again."""
    return typed + "".join(_block(file) for file in files)


def _block(file: Attachment) -> str:
    # A name that looks numbered by itself gets a number too, so that reading it back is never a guess.
    label, number = file.name, 1
    while _end(label) in file.content or (number == 1 and _NUMBERED.fullmatch(label)):
        number += 1
        label = f"{file.name} #{number}"
    return f"{_HEAD}{label}]\n{file.content}\n{_end(label)}"


def _end(label: str) -> str:
    return f"[end of file: {label}]"


def split(text: str) -> tuple[str, tuple[Attachment, ...]]:
    """What was typed, and the files behind it; ``with_files`` of both is the same text again."""
    at = text.find(_HEAD)
    # What was typed may look like a file too. The real ones reach to the end.
    for _ in range(_MOST_FILES):
        if at < 0 or not text.endswith("]"):
            break
        files = _files_from(text, at)
        if files and with_files(text[:at], files) == text:
            return text[:at], files
        at = text.find(_HEAD, at + 1)
    return text, ()


def _files_from(text: str, at: int) -> tuple[Attachment, ...]:
    """The files that fill the text from ``at`` to its end, or none."""
    files: list[Attachment] = []
    while at < len(text):
        line_end = text.find("]\n", at)
        if not text.startswith(_HEAD, at) or line_end < 0:
            return ()
        label = text[at + len(_HEAD) : line_end]
        end = text.find(f"\n{_end(label)}", line_end + 2)
        if "\n" in label or end < 0:
            return ()
        numbered = _NUMBERED.fullmatch(label)
        files.append(Attachment(numbered["name"] if numbered else label, text[line_end + 2 : end]))
        at = end + 1 + len(_end(label))
    return tuple(files)
