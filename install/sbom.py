"""The list of a wheelhouse's parts in CycloneDX's format: each wheel with its name, version, licence and SHA-256."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.message import Message
from email.parser import HeaderParser
from hashlib import sha256
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5
from zipfile import BadZipFile, ZipFile

from agent.errors import SprigError

SBOM = "sbom.cdx.json"
_DAY = datetime(1980, 1, 1, tzinfo=UTC)  # the same wheels give the same list


def parts_list(wheels: Mapping[str, Path]) -> str:
    """The list as JSON (CycloneDX 1.6). Raises SprigError if a file is no wheel."""
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.model.license import DisjunctiveLicense, LicenseExpression
    from cyclonedx.output.json import JsonV1Dot6
    from packageurl import PackageURL

    bom = Bom()
    for file, path in sorted(wheels.items()):
        told, digest = _metadata(path), sha256(path.read_bytes()).hexdigest()
        name, version = str(told["Name"]), str(told["Version"])
        expression, words = told["License-Expression"], (told["License"] or "").strip().partition("\n")[0]
        licences = [LicenseExpression(expression)] if expression else [DisjunctiveLicense(name=words)] if words else []
        bom.components.add(
            Component(
                type=ComponentType.LIBRARY, name=name, version=version, bom_ref=file, licenses=licences,
                purl=PackageURL("pypi", name=name.lower().replace("_", "-"), version=version, qualifiers={"file_name": file}),
                hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)],
            )
        )  # fmt: skip
    bom.metadata.timestamp = _DAY
    bom.serial_number = uuid5(NAMESPACE_URL, "\n".join(f"{c.bom_ref} {h.content}" for c in bom.components for h in c.hashes))
    return JsonV1Dot6(bom).output_as_string(indent=1) + "\n"


def _metadata(wheel: Path) -> Message[str, str]:
    try:
        with ZipFile(wheel) as held:
            name = next(n for n in held.namelist() if n.endswith(".dist-info/METADATA") and n.count("/") == 1)
            return HeaderParser().parsestr(held.read(name).decode("utf-8"))
    except (BadZipFile, StopIteration, UnicodeDecodeError) as e:
        raise SprigError(f"{wheel.name} is no wheel ({e or 'no METADATA'}): remove build/wheels and run it again") from None
