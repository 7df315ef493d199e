"""What is known of a device: memory, processor, and how fast it reads and writes; from TOML files, Sprig's own and a user's."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

from agent.errors import SprigError
from agent.files import human_size, parse_size
from agent.gguf.types import TYPES_BY_NAME
from agent.home import home
from agent.models.memory import FREE_PART, Processor
from agent.text.nearest import nearest

BASES = ("measured", "published", "derived")
_OWN_ENDING = ".toml"
_SIZED = re.compile(r"(.+?)-(\d+(?:\.\d+)?[mg]b)")


class ProfileError(SprigError):
    """A device profile that is not known, or whose file is broken."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of a profile.

    Attributes:
        value: in the unit of its place.
        basis: "measured" by Sprig on such a device, "published" by somebody, or "derived" from such figures.
        source: where it is from.
    """

    value: float
    basis: str
    source: str


@dataclass(frozen=True, slots=True)
class DecodeSpeed:
    """How fast a device writes.

    Attributes:
        layer: milliseconds of a token in each layer that do not depend on the bytes read.
        bandwidth: GB/s at which weights and K/V are read.
        types: GB/s for weights of these types, where the arithmetic is slower than the memory.
        error: per cent by which a prediction has been seen off.
    """

    layer: Figure
    bandwidth: Figure
    types: Mapping[str, Figure]
    error: int


@dataclass(frozen=True, slots=True)
class PrefillSpeed:
    """How fast a device reads a prompt.

    Attributes:
        types: GFLOP/s with weights of these types.
        repacked, plain: GFLOP/s with the other types that the processor repacks, and with those that it does not.
        attention: GFLOP/s of attention.
        elementwise: giga-numbers a second of all that is done to each number of each layer besides; None where it is not known.
        error: per cent by which a prediction has been seen off.
    """

    types: Mapping[str, Figure]
    repacked: Figure
    plain: Figure
    attention: Figure
    elementwise: Figure | None
    error: int


@dataclass(frozen=True, slots=True)
class DeviceProfile:
    """A kind of device, with one size of memory.

    Attributes:
        name: what a person types, without a size.
        title: what it is called.
        memory: bytes that it has.
        sizes: all sizes of memory that there are of it, in bytes.
        system: bytes that the system itself holds.
        budget: bytes that a model may take.
        cores: in words.
        processor: what decides how a model is loaded.
    """

    name: str
    title: str
    memory: int
    sizes: tuple[int, ...]
    system: int
    budget: int
    cores: str
    processor: Processor
    decode: DecodeSpeed
    prefill: PrefillSpeed

    @property
    def words(self) -> str:
        """What it is and how much memory it has, for a person."""
        return f"{self.title} with {human_size(self.memory).replace('.00', '')}"

    @property
    def full_name(self) -> str:
        """With its size, where there are several."""
        return sized(self.name, self.memory) if len(self.sizes) > 1 else self.name


def sized(name: str, memory: int) -> str:
    """The name of a profile with so much memory: "pi5-8gb"."""
    return f"{name}-{human_size(memory).replace('.00', '').replace(' ', '').lower()}"


def find_profile(wanted: str) -> DeviceProfile:
    """The profile of this name, with or without a size behind it.

    Raises:
        ProfileError: there is none, with the nearest name, or its file is broken.
    """
    name = wanted.strip().lower()
    places = _places()
    match = None if name in places else _SIZED.fullmatch(name)
    place = places.get(match[1] if match else name)
    if place is None:
        near = nearest(name, places)
        hint = f"did you mean {near}? " if near else ""
        raise ProfileError(f"there is no device {wanted!r}; {hint}`sprig fit --devices` lists them, docs/devices.md adds one")
    found = read_profile(place)
    if match is None:
        return found
    size = parse_size(match[2])
    if size not in found.sizes:
        names = ", ".join(sized(found.name, one) for one in found.sizes)
        raise ProfileError(f"there is no {found.title} with {human_size(size)}: {names}; --memory takes any size")
    return _with_memory(found, size)


def list_profiles() -> Iterator[DeviceProfile | ProfileError]:
    """Every profile by name; in the place of one that is broken, what is wrong with it."""
    for _, place in sorted(_places().items()):
        try:
            yield read_profile(place)
        except ProfileError as e:
            yield e


def user_profiles() -> Path:
    """The folder of a user's own profiles."""
    return home() / "devices"


def _places() -> dict[str, Path]:
    """Name -> file. A user's own comes before Sprig's of the same name."""
    found: dict[str, Path] = {}
    for folder in (Path(str(resources.files("agent.fit") / "profiles")), user_profiles()):
        try:
            found |= {f.stem.lower(): f for f in sorted(folder.iterdir()) if f.suffix == _OWN_ENDING}
        except OSError:
            continue  # no such folder
    return found


def read_profile(path: Path) -> DeviceProfile:
    """Read one file. ProfileError in one line: file, key, what is wrong."""
    try:
        data = tomllib.loads(path.read_text("utf-8"))
    except OSError as e:
        raise ProfileError(f"cannot read the device profile {path}: {e.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise ProfileError(f"{path} is not TOML: {e}; correct it or remove it") from None
    return _Reader(path).profile(data)


class _Reader:
    """Reads the values of one file, and says where a wrong one stands."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def wrong(self, key: str, what: str) -> ProfileError:
        return ProfileError(f"{self.path}: {key} {what}; correct it or remove the file")

    def profile(self, data: Mapping[str, Any]) -> DeviceProfile:
        self.known(data, "", ("title", "memory", "usual", "system", "cores", "machine", "features", "decode", "prefill"))
        sizes = tuple(sorted(self.size(text, "memory") for text in self.words(data, "memory")))
        if not sizes:
            raise self.wrong("memory", 'names no size; memory = ["4GB", "8GB"] does')
        usual = self.size(data["usual"], "usual") if "usual" in data else sizes[0]
        if usual not in sizes:
            raise self.wrong("usual", "is none of the sizes in memory")
        processor = Processor(self.text(data, "machine"), frozenset(self.words(data, "features")))
        decode, prefill = self.table(data, "decode"), self.table(data, "prefill")
        profile = DeviceProfile(
            self.path.stem.lower(), self.text(data, "title"), 0, sizes, self.size(data.get("system", "0"), "system"), 0,
            self.text(data, "cores"), processor, self.decode(decode), self.prefill(prefill),
        )  # fmt: skip
        if profile.system >= sizes[0]:
            raise self.wrong("system", "is as much as all the memory")
        return _with_memory(profile, usual)

    def decode(self, data: Mapping[str, Any]) -> DecodeSpeed:
        types = self.figures(data, "decode", ("layer", "bandwidth"))
        return DecodeSpeed(
            self.figure(data, "decode.layer", least=0), self.figure(data, "decode.bandwidth"), types, self.error(data, "decode")
        )

    def prefill(self, data: Mapping[str, Any]) -> PrefillSpeed:
        named = ("repacked", "plain", "attention", "elementwise")
        types = self.figures(data, "prefill", named)
        plain = self.figure(data, "prefill.plain")
        return PrefillSpeed(
            types, self.figure(data, "prefill.repacked") if "repacked" in data else plain, plain,
            self.figure(data, "prefill.attention"), self.figure(data, "prefill.elementwise") if "elementwise" in data else None,
            self.error(data, "prefill"),
        )  # fmt: skip

    def figures(self, data: Mapping[str, Any], where: str, named: Sequence[str]) -> dict[str, Figure]:
        """The figures that stand under the name of a type."""
        self.known(data, f"{where}.", (*named, "error", *TYPES_BY_NAME))
        return {name: self.figure(data, f"{where}.{name}") for name in data if name in TYPES_BY_NAME}

    def figure(self, data: Mapping[str, Any], key: str, least: float | None = None) -> Figure:
        found = data.get(key.rpartition(".")[2])
        if not isinstance(found, dict):
            raise self.wrong(key, 'is missing; { value = 11.0, basis = "published", source = "where it is from" } is one')
        self.known(found, f"{key}.", ("value", "basis", "source"))
        value, basis, source = found.get("value"), found.get("basis"), found.get("source")
        if isinstance(value, bool) or not isinstance(value, int | float) or not (value > 0 or value == least) or value > 1e6:
            raise self.wrong(f"{key}.value", f"is {value!r} and must be a number above 0")
        if basis not in BASES:
            raise self.wrong(f"{key}.basis", f"is {basis!r} and must be one of {', '.join(BASES)}")
        if not isinstance(source, str) or not source.strip():
            raise self.wrong(f"{key}.source", "is missing: say where the figure is from")
        return Figure(float(value), basis, source)

    def error(self, data: Mapping[str, Any], where: str) -> int:
        found = data.get("error")
        if isinstance(found, bool) or not isinstance(found, int) or not 1 <= found <= 500:
            raise self.wrong(f"{where}.error", f"is {found!r} and must be whole per cents, like 25")
        return found

    def known(self, data: Mapping[str, Any], where: str, allowed: Sequence[str]) -> None:
        if odd := next((key for key in data if key not in allowed), None):
            near = nearest(odd, allowed)
            raise self.wrong(f"{where}{odd}", f"is not a key of a profile{f'; did you mean {near}?' if near else ''}")

    def table(self, data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
        found = data.get(key)
        if not isinstance(found, dict):
            raise self.wrong(key, f"is missing: there must be a table [{key}]")
        return found

    def text(self, data: Mapping[str, Any], key: str) -> str:
        found = data.get(key)
        if not isinstance(found, str) or not found.strip():
            raise self.wrong(key, "is missing: it must be a text")
        return found

    def words(self, data: Mapping[str, Any], key: str) -> list[str]:
        found = data.get(key)
        if not isinstance(found, list) or not all(isinstance(word, str) for word in found):
            raise self.wrong(key, "is missing: it must be a list of texts")
        return found

    def size(self, text: Any, key: str) -> int:
        try:
            return parse_size(text)
        except (ValueError, AttributeError):
            raise self.wrong(key, f"is {text!r}, which is no size; 8GB and 512MB are") from None


def _with_memory(profile: DeviceProfile, memory: int) -> DeviceProfile:
    return replace(profile, memory=memory, budget=int(FREE_PART * (memory - profile.system)))
