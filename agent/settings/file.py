"""The settings file: read with its errors named by line, and changed without touching what its owner wrote beside the change."""

from __future__ import annotations

import contextlib
import copy
import fcntl
import logging
import os
import re
import stat
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from agent.errors import OutputError
from agent.home import home
from agent.settings.declare import Setting, find_setting, read
from agent.settings.kinds import Kind, SettingsError, WrongSetting, plain
from agent.settings.values import Settings
from agent.text import display

if TYPE_CHECKING:
    from agent.approval.policy import Rule

log = logging.getLogger(__name__)

S = TypeVar("S", bound=Settings)
MOST_BYTES = 1_000_000
_LOCK_SECONDS, _LOOK_SECONDS = 10.0, 0.02
_BOM = "\ufeff"
_RULES = "rules"  # the one key to whose value something is added
_PLACE = re.compile(r"^(.*) \(at (?:line (\d+), column (\d+)|end of document)\)$", re.DOTALL)


def place(path: Path | None = None) -> Path:
    """Where the settings are: a file that is named, or ``settings.toml`` in SPRIG_HOME. SettingsError without the named one."""
    own = home() / "settings.toml"
    if path is not None and not path.is_file():
        raise SettingsError(f"there is no settings file {path}; without a name, {own} is read")
    return path or own


def agent_settings(path: Path) -> SettingsFile[Settings]:
    """What a file says of the agent; it may not exist yet."""
    return SettingsFile(path, Settings, elsewhere=("screen", "keys"))


class SettingsFile(Generic[S]):
    """A file with settings. Every method raises SettingsError, in one line."""

    def __init__(
        self, path: Path, form: type[S], *, elsewhere: Collection[str] = (), kinds: Mapping[str, Kind] | None = None
    ) -> None:
        """Nothing is read yet, and the file may not exist.

        Args:
            form: the dataclass that declares what may stand in it.
            elsewhere: tables in it that others read.
            kinds: stricter kinds for some keys of the top.
        """
        self.path, self.form = path, form
        self._elsewhere, self._kinds = elsewhere, kinds or {}

    def load(self) -> S:
        """What it says; without a file, the defaults. An error names the line, what is wrong there, and what it should be."""
        text = read_text(self.path)
        log.info("settings: %s %s", self.path, "is not there" if text is None else "read")
        return self.form() if text is None else self.parse(text)

    def parse(self, text: str) -> S:
        """What a text says that stands in the place of the file's."""
        try:
            return self._read(tables(text, self.path.name))
        except WrongSetting as e:
            from agent.settings.lines import line_of

            line = line_of(text.removeprefix(_BOM), e.where)
            raise SettingsError(f"{self.path.name}, line {line}: {e}", line) from None

    def _read(self, data: Mapping[str, Any]) -> S:
        return read(self.form, {key: value for key, value in data.items() if key not in self._elsewhere}, self._kinds)

    def create(self) -> bool:
        """Write the explained defaults where there is no file yet. Returns whether that was so."""
        if read_text(self.path) is not None:
            return False
        from agent.settings.edit import default_text

        self._write(default_text(self.form))
        return True

    def change(self, key: str, value: Any) -> S:
        """Set one value; a missing file is made, with every setting explained in it. A file with an error is left as it is.

        Args:
            key: dotted: ``sampling.seed``, ``keys.ACTION``, ``mcp.NAME`` (a table of its fields) or ``mcp.NAME.FIELD``.
            value: as the settings have it; None where a setting can be "auto" or "none".
        """
        one = find_setting(self.form, key)
        return self._put(key, plain(value) if one is None else one.kind.write(value), one)

    def add_rule(self, rule: Rule) -> S:
        """Add an approval rule, unless it is there. Otherwise as ``change``."""
        return self._put(_RULES, rule.to_dict(), None)

    def _put(self, key: str, value: Any, one: Setting | None) -> S:
        """Change the tables, check them, find a text that holds just these, and put it in the place of the old one."""
        from agent.settings.edit import changed, default_text

        with _alone(self.path.resolve().parent):
            found = read_text(self.path)
            whole = default_text(self.form) if found is None else found
            before = self.parse(whole)
            text = whole.removeprefix(_BOM).replace("\r\n", "\n")
            data = tables(text, self.path.name)
            wanted, where = copy.deepcopy(data), _path(data, key)
            _set(wanted, where, value)
            after = self._read(wanted)
            if wanted == data and found is not None:
                return before
            if wanted != data:
                new = changed(text, where, value, wanted, one)
                if new is None:
                    what = f"{display(key)} cannot be put into it: do it by hand"
                    raise SettingsError(f"{self.path.name} is written in a way that {what}")
                text = new
            self._write(whole[: whole.startswith(_BOM)] + (text.replace("\n", "\r\n") if "\r\n" in whole else text))
            return after

    def _write(self, text: str) -> None:
        """Through a link, and readable to nobody who could not read it: the environment of an MCP server may hold a password."""
        from agent.files import atomic_write

        raw = text.encode()
        if len(raw) > MOST_BYTES:
            raise SettingsError(f"{self.path.name} would be larger than {MOST_BYTES // 1_000_000} MB")
        real = self.path.resolve()
        try:
            real.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(real, raw, mode=stat.S_IMODE(real.stat().st_mode) if real.exists() else 0o600)
        except (OSError, OutputError) as e:
            why = f"{real}: {e.strerror or e}" if isinstance(e, OSError) else e
            raise SettingsError(f"the settings were not saved: {why}") from None


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Between reading a file of this folder and writing it, no other thread and no other process of ours does the same."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as e:
        raise SettingsError(f"the settings were not saved: {folder}: {e.strerror}") from None
    try:
        _lock(fd)
        yield
    finally:
        os.close(fd)


def _lock(fd: int) -> None:
    end = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                why = f"another program has been changing them for {_LOCK_SECONDS:.0f} s"
                raise SettingsError(f"the settings were not saved: {why}") from None
        except OSError:  # some network file systems know no locks
            return None
        time.sleep(_LOOK_SECONDS)


def _set(data: dict[str, Any], where: list[str], value: Any) -> None:
    """Set a value in the tables, or add a rule."""
    *path, last = where
    for part in path:
        data = data.setdefault(part, {})
        if not isinstance(data, dict):
            raise SettingsError(f"{display('.'.join(where))} cannot be set: {display(part)} is no table")
    if where != [_RULES]:
        data[last] = value
    elif value not in (rules := data.setdefault(last, [])):
        rules.append(value)


def _path(data: Mapping[str, Any], key: str) -> list[str]:
    """Keys from the top. An action's id may hold dots: it is one key, unless the file has it as several."""
    parts = key.split(".")
    if parts[0] != "keys":
        return parts
    inner: Any = data
    for part in parts:
        inner = inner.get(part) if isinstance(inner, dict) else None
    return parts if inner is not None else ["keys", key.removeprefix("keys.")]


def tables(text: str, title: str) -> dict[str, Any]:
    """The TOML tables of a text; ``title`` is what errors call it. Raises SettingsError with the line of what is no TOML."""
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
    from agent.settings.lines import open_line

    number = open_line(text)
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
    except (FileNotFoundError, NotADirectoryError):
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
