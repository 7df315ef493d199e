"""The settings file: read with its errors named by line, and changed without touching what its owner wrote beside the change."""

from __future__ import annotations

import contextlib
import copy
import logging
import os
import re
import stat
import threading
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.errors import OutputError, SprigError
from agent.text import display
from tui.settings.kinds import WrongSetting
from tui.settings.schema import option, read
from tui.settings.values import Settings

if TYPE_CHECKING:
    from agent.approval.policy import Rule

log = logging.getLogger(__name__)

# Text, its tables, and the tables that the new text must hold -> the new text, if there is a way.
_WriteIn = Callable[[str, Mapping[str, Any], Mapping[str, Any]], "str | None"]

MOST_BYTES = 1_000_000
_BOM = "\ufeff"
_WRITING = threading.Lock()  # between reading the file and writing it, no other thread of ours does the same
_PLACE = re.compile(r"^(.*) \(at (?:line (\d+), column (\d+)|end of document)\)$", re.DOTALL)


class SettingsError(SprigError):
    """The settings cannot be used. ``line`` is the one to look at, counted from 1, where the error has one."""

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.line = line


def load(path: Path, known_actions: Collection[str] | None = None) -> Settings:
    """The settings of a file; where there is none, the defaults.

    Args:
        path: the file.
        known_actions: ids of the actions that ``[keys]`` may name; None does not check them.

    Raises:
        SettingsError: one line with the line of the file: what is wrong there, and what it should be.
    """
    text = read_text(path)
    log.info("settings: %s %s", path, "is not there" if text is None else "read")
    return Settings() if text is None else parse(text, path.name, known_actions)


def parse(text: str, title: str = "settings.toml", known_actions: Collection[str] | None = None) -> Settings:
    """The settings that a text holds; ``title`` is what errors call it. Raises SettingsError."""
    data = tables(text, title)
    try:
        return read(data, known_actions)
    except WrongSetting as e:
        from tui.settings.toml_lines import line_of

        line = line_of(text.removeprefix(_BOM), e.where)
        raise SettingsError(f"{title}, line {line}: {e}", line) from None


def tables(text: str, title: str) -> dict[str, Any]:
    """The TOML tables of a text. Raises SettingsError with the line of what is no TOML."""
    import tomllib  # 10 ms that a start without a file can do without

    text = text.removeprefix(_BOM)
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as e:
        raise _syntax_error(str(e), text, title) from None
    except RecursionError:
        raise SettingsError(f"{title}: its brackets are nested too deep to be settings") from None
    except ValueError as e:  # a number with thousands of digits
        raise SettingsError(f"{title} cannot be read: {display(str(e))}") from None


def _syntax_error(message: str, text: str, title: str) -> SettingsError:
    found = _PLACE.match(message)
    what, line, column = found.groups() if found else (message, None, None)
    if what.startswith("Cannot overwrite"):
        what = "this key is there twice"  # tomllib says "a value"
    what = display(what[:1].lower() + what[1:200])
    if line is not None:
        return SettingsError(f"{title}, line {line}: not TOML: {what} (column {column})", int(line))
    from tui.settings.toml_lines import last_line

    # What breaks off at the end of the file has begun where its key is: an open string, an open bracket.
    number = last_line(text.replace("\r\n", "\n"))
    return SettingsError(f"{title}, line {number}: not TOML: {what}", number)


def read_text(path: Path) -> str | None:
    """The text of the file with its line ends and byte order mark; None when there is none. Raises SettingsError."""
    try:
        # Opening a pipe would wait for somebody to write into it.
        if not stat.S_ISREG(mode := path.stat().st_mode):
            what = "a folder" if stat.S_ISDIR(mode) else "no file"
            raise SettingsError(f"{path} is {what}: move it away, and the settings are made new")
        with path.open("rb") as f:
            raw = f.read(MOST_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as e:
        raise SettingsError(f"{path} cannot be read: {e.strerror or e}") from None
    if len(raw) > MOST_BYTES:
        raise SettingsError(f"{path} is larger than {MOST_BYTES // 1_000_000} MB, too large to be settings")
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise SettingsError(f"{path.name}, line 1: it is UTF-16; save it as UTF-8", 1)
    try:
        return raw.decode()
    except UnicodeDecodeError as e:
        line = raw.count(b"\n", 0, e.start) + 1
        raise SettingsError(f"{path.name}, line {line}: byte {raw[e.start]:#04x} is not UTF-8; save it as UTF-8", line) from None


def create(path: Path) -> bool:
    """Write the explained defaults where there is no file yet. Returns whether that was so. Raises SettingsError."""
    if read_text(path) is not None:
        return False
    from tui.settings.text import default_text

    _write(path, default_text().encode())
    return True


def change(path: Path, key: str, value: Any, known_actions: Collection[str] | None = None) -> Settings:
    """Set one value in the file; a missing file is made from ``tui.settings.text.default_text``.

    Args:
        path: the file.
        key: dotted: ``screen.theme``, ``keys.ACTION``, ``mcp.NAME`` (a table of its fields) or ``mcp.NAME.FIELD``.
        value: as ``Settings`` has it; None where a setting can be "auto" or "none".
        known_actions: see ``load``.

    Returns:
        What the file says now.

    Raises:
        SettingsError: the value cannot be, or the file has an error and is left as it is, or it cannot be written.
    """
    one = option(key)
    plain = one.kind.write(value) if one is not None else _plain(value)

    def edit(data: dict[str, Any]) -> None:
        *way, last = _way(data, key)
        for part in way:
            data = data.setdefault(part, {})
            if not isinstance(data, dict):
                raise SettingsError(f"{display(key)} cannot be set: {display(part)} is no table")
        data[last] = plain

    def write_in(text: str, data: Mapping[str, Any], wanted: Mapping[str, Any]) -> str | None:
        from tui.settings.edit import with_value

        return with_value(text, _way(data, key), plain, wanted)

    with _WRITING:
        return _rewrite(path, edit, write_in, key, known_actions)


def add_rule(path: Path, rule: Rule, known_actions: Collection[str] | None = None) -> Settings:
    """Add an approval rule to the file, unless it is there. Otherwise as ``change``."""
    plain = rule.to_dict()

    def edit(data: dict[str, Any]) -> None:
        if plain not in (rules := data.setdefault("rules", [])):
            rules.append(plain)

    def write_in(text: str, data: Mapping[str, Any], wanted: Mapping[str, Any]) -> str | None:
        from tui.settings.edit import with_rule

        return with_rule(text, plain, wanted)

    with _WRITING:
        return _rewrite(path, edit, write_in, "the rule", known_actions)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items() if v is not None}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


def _way(data: Mapping[str, Any], key: str) -> list[str]:
    """Keys from the top. An action's id may hold dots: it is one key, unless the file has it as several."""
    parts = key.split(".")
    if parts[0] != "keys":
        return parts
    inner: Any = data
    for part in parts:
        inner = inner.get(part) if isinstance(inner, dict) else None
    return parts if inner is not None else ["keys", key.removeprefix("keys.")]


def _rewrite(
    path: Path,
    edit: Callable[[dict[str, Any]], None],
    write_in: _WriteIn,
    what: str,
    known_actions: Collection[str] | None,
) -> Settings:
    from tui.settings.text import default_text

    found = read_text(path)
    whole = default_text() if found is None else found
    before = parse(whole, path.name, known_actions)
    bom = _BOM if whole.startswith(_BOM) else ""
    crlf = "\r\n" in whole
    text = whole.removeprefix(_BOM).replace("\r\n", "\n")
    data = tables(text, path.name)
    wanted = copy.deepcopy(data)
    edit(wanted)
    try:
        after = read(wanted, known_actions)
    except WrongSetting as e:
        raise SettingsError(str(e)) from None
    if wanted == data and found is not None:
        return before
    new = text if wanted == data else write_in(text, data, wanted)
    if new is None:
        raise SettingsError(f"{path.name} is written in a way that {display(what)} cannot be put into it: do it by hand")
    raw = (bom + (new.replace("\n", "\r\n") if crlf else new)).encode()
    if len(raw) > MOST_BYTES:
        raise SettingsError(f"{path.name} would be larger than {MOST_BYTES // 1_000_000} MB")
    _write(path, raw)
    return after


def _write(path: Path, raw: bytes) -> None:
    """In one step, like ``agent.files.atomic_write``, but through a link, and readable to nobody who could not read it.

    The environment of an MCP server may hold a password: a new file is for its owner alone.
    """
    import secrets

    from agent.files import publish

    place = path.resolve()
    part = place.with_name(f".{place.name[:100]}.{secrets.token_hex(4)}.part")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        mode = place.stat().st_mode & 0o777 if place.exists() else 0o600
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as f:  # noqa: PTH123
            f.write(raw)
        part.chmod(mode)
        publish(part, place)
    except (OSError, OutputError) as e:
        why = f"{place}: {e.strerror or e}" if isinstance(e, OSError) else e
        raise SettingsError(f"the settings were not saved: {why}") from None
    finally:
        with contextlib.suppress(OSError):
            part.unlink()
