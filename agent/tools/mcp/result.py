"""What an MCP tool answered, as a tool's result: text, data and at most one picture, whatever the server put into it."""

from __future__ import annotations

import base64
import binascii
import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.tools.mcp.schema import mismatch
from agent.tools.result import ToolResult, describe_bytes, failure, to_result

_PICTURES = {b"\x89PNG\r\n\x1a\n": ".png", b"\xff\xd8\xff": ".jpg", b"GIF8": ".gif", b"RIFF": ".webp"}
_BLOCKS = 1_000


def convert(answer: Mapping[str, Any], output: Mapping[str, Any] | None, pictures: Path, seconds: float) -> ToolResult:
    """A ``CallToolResult`` (https://modelcontextprotocol.io/specification/2025-11-25/server/tools) as a ToolResult.

    Args:
        answer: as JSON values.
        output: the schema that its structured content must have, if the tool promised one.
        pictures: a folder for the picture.
        seconds: how long the call took.
    """
    failed = bool(answer.get("isError"))
    data = answer.get("structuredContent")
    if not failed and output is not None:
        wrong = "it lacks its structured content" if data is None else mismatch(data, output)
        if wrong:
            return failure(f"the server broke its own schema: {wrong}", seconds)
    lines: list[str] = []
    picture: str | None = None
    for block in answer.get("content", [])[:_BLOCKS]:
        line, path = _block(block, pictures if picture is None else None)
        lines.append(line)
        picture = picture or path
    text = "\n".join(line for line in lines if line)
    if not text and data is not None:
        text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    text = text or ("it failed and does not say why" if failed else "done")
    return to_result(ToolResult(not failed, text, data=data, image=picture, seconds=seconds))


def _block(block: Mapping[str, Any], pictures: Path | None) -> tuple[str, str | None]:
    """One block of content in words, and the path of the picture when it is one and there is a folder for it."""
    match block.get("type"):
        case "text":
            return str(block.get("text", "")), None
        case "image":
            return _picture(block, pictures)
        case "audio":
            return f"[{_binary(block.get('data'), 'audio')}]", None
        case "resource_link":
            return f"[link {block.get('uri', '')}] {block.get('title') or block.get('name') or ''}".rstrip(), None
        case "resource":
            return _resource(block.get("resource") or {}), None
        case other:
            return f"[content of kind {str(other)[:40]!r} left out]", None


def _resource(resource: Mapping[str, Any]) -> str:
    head = f"[resource {resource.get('uri', '')}]"
    if isinstance(resource.get("text"), str):
        return f"{head}\n{resource['text']}"
    return f"{head} {_binary(resource.get('blob'), 'binary data')}"


def _binary(data: object, kind: str) -> str:
    raw = _decode(data)
    return f"unreadable {kind}" if raw is None else describe_bytes(raw[:64], len(raw))


def _picture(block: Mapping[str, Any], pictures: Path | None) -> tuple[str, str | None]:
    raw = _decode(block.get("data"))
    if raw is None:
        return "[unreadable image]", None
    ending = next((e for magic, e in _PICTURES.items() if raw.startswith(magic)), "")
    described = f"[{describe_bytes(raw[:64], len(raw))}]"
    if not ending:
        return described, None
    if pictures is None:
        return f"{described[:-1]}, left out: one picture a result]", None
    path = pictures / f"{secrets.token_hex(6)}{ending}"
    try:
        path.write_bytes(raw)
    except OSError as e:
        return f"{described[:-1]}, could not be kept: {e.strerror}]", None
    return described, str(path)


def _decode(data: object) -> bytes | None:
    try:
        return base64.b64decode(data, validate=True) if isinstance(data, str) else None
    except (binascii.Error, ValueError):
        return None
