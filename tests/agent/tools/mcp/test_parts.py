"""The parts of MCP that need no server: how one is named by a person, what its tools are called, what its answers become."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.tools.mcp import bounds
from agent.tools.mcp.config import MCPError, ServerConfig
from agent.tools.mcp.result import convert
from agent.tools.mcp.schema import Offered, mismatch, public_names, read_tool


@pytest.mark.parametrize(
    ("text", "config"),
    [
        ("files=npx -y server '/my files'", ServerConfig("files", command=("npx", "-y", "server", "/my files"))),
        (" time = not-a-name", None),
        ("web=https://example.org/mcp", ServerConfig("web", url="https://example.org/mcp")),
        ("https://mcp.example.org:8080/mcp?key=a=b", ServerConfig("example-org", url="https://mcp.example.org:8080/mcp?key=a=b")),
        ("http://[::1]:9/mcp", ServerConfig("1", url="http://[::1]:9/mcp")),
        ("a=b --flag=c.json", ServerConfig("a", command=("b", "--flag=c.json"))),
        ("npx server", None),
        ("a=", None),
        ("a='open", None),
        ("ftp://example.org/", None),
        ("a=b\0c", None),
        ("", None),
        ("none.json", None),
    ],
)
def test_a_server_is_named_on_one_line(text: str, config: ServerConfig | None) -> None:
    if config is None:
        with pytest.raises(MCPError) as told:
            ServerConfig.parse(text)
        assert "\n" not in str(told.value)
    else:
        assert ServerConfig.parse(text) == (config,)


@given(st.text(max_size=60))
def test_any_word_is_a_server_or_an_error(text: str) -> None:
    try:
        (config,) = ServerConfig.parse(text)
    except MCPError:
        return
    assert (config.command is None) != (config.url is None)


def test_the_file_of_other_clients_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mcp.json"
    entry = {
        "command": "uvx",
        "args": ["mcp-server-git"],
        "env": {"A": "b"},
        "cwd": "/x",
        "type": "stdio",
        "timeout": 5,
        "deny": ["rm*"],
    }
    web = {"url": "https://x.org/mcp", "headers": {"Authorization": "Bearer t"}, "allow": ["get*"]}
    path.write_text(json.dumps({"mcpServers": {"git": entry, "web": web, "off": {"command": "x", "disabled": True}}, "other": 1}))
    git, remote = ServerConfig.parse(str(path))
    assert git == ServerConfig("git", ("uvx", "mcp-server-git"), {"A": "b"}, "/x", timeout=5, deny=("rm*",))
    assert remote == ServerConfig("web", url="https://x.org/mcp", headers={"Authorization": "Bearer t"}, allow=("get*",))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "is no list of MCP servers"),
        ("[]", "is no list of MCP servers"),
        ("[" * 100_000, "is no list of MCP servers"),
        ('{"servers": {}}', "is no list of MCP servers"),
        ('{"mcpServers": {"a": 5}}', "is no list of MCP servers"),
        ('{"mcpServers": {"a": {"command": 5}}}', "command is not a text"),
        ('{"mcpServers": {"a": {"command": "x", "args": "-y"}}}', "args is not a list of texts"),
        ('{"mcpServers": {"a": {"command": "x", "env": {"A": 1}}}}', "env is not an object of texts"),
        ('{"mcpServers": {"a": {"command": "x", "timeout": "1"}}}', "timeout is not a number of seconds"),
        ('{"mcpServers": {"a": {"command": "x", "timeout": -1}}}', "a timeout is a positive number"),
        ('{"mcpServers": {"a": {"command": "x", "url": "http://x"}}}', "a command or a url, and not both"),
        ('{"mcpServers": {"a": {}}}', "a command or a url, and not both"),
        ('{"mcpServers": {"a b": {"command": "x"}}}', "cannot be called 'a b'"),
        ('{"mcpServers": {"a": {"url": "http://x", "headers": {"A": "b\\r\\nC: d"}}}}', "a header holds a line break"),
        (" " * 1_000_001, "is larger than"),
    ],
)  # fmt: skip
def test_a_file_that_is_none_is_one_line(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "mcp.json"
    path.write_text(text)
    with pytest.raises(MCPError, match=told):
        ServerConfig.parse(str(path))


def test_deny_is_stronger_than_allow() -> None:
    config = ServerConfig("a", command=("x",), allow=("read_*", "list"), deny=("*_secret",))
    assert [config.offers(name) for name in ("read_file", "list", "read_secret", "write", "LIST")] == [
        True,
        True,
        False,
        False,
        False,
    ]
    assert ServerConfig("a", command=("x",), allow=()).offers("read_file") is False


NAMES = st.tuples(st.text("ab-_", min_size=1, max_size=40), st.text("ab/:_ é", min_size=1, max_size=70))


@given(st.lists(NAMES, unique=True, max_size=12), st.randoms())
def test_every_tool_has_a_name_of_its_own_that_does_not_depend_on_the_order(keys: list[tuple[str, str]], random: Any) -> None:
    names = public_names(keys)
    assert len(set(names.values())) == len(keys)
    assert all((len(name) <= 64 and name.isascii() and name.replace("_", "").replace("-", "").isalnum()) or set(name) <= set("_-")
               for name in names.values())  # fmt: skip
    shuffled = list(keys)
    random.shuffle(shuffled)
    assert public_names(shuffled) == names


def test_a_plain_name_stays_readable() -> None:
    assert public_names([("git", "log"), ("git", "show file")]) == {
        ("git", "log"): "git__log", ("git", "show file"): "git__show_file",
    }  # fmt: skip


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([0.5, 1.0]) | st.sampled_from(["a", "b"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "type", "inputSchema", "name"]), inner)
    ),
    max_leaves=8,
)


@given(JSON, JSON)
def test_any_json_is_a_tool_or_a_reason(raw: Any, schema: Any) -> None:
    for entry in (
        raw,
        {"name": "t", "inputSchema": schema},
        {"name": "t", "inputSchema": {"type": "object", "properties": schema}},
    ):
        tool = read_tool(entry)
        assert isinstance(tool, Offered) or tool


KINDS = st.sampled_from(["object", "array", "string", "boolean", "null", "integer", "number"])
VALUES = st.sampled_from(["a", "b", None, True, 1, 0.5])
SCHEMAS = st.recursive(
    st.builds(dict) | st.builds(lambda kind: {"type": kind}, KINDS) | st.builds(lambda kinds: {"type": kinds}, st.lists(
        KINDS, min_size=1, max_size=2, unique=True,
    )) | st.builds(lambda options: {"enum": options}, st.lists(VALUES, min_size=1, unique=True)),
    lambda inner: st.builds(lambda s, r: {"type": "object", "properties": {"a": s}, "required": r}, inner, st.sampled_from(
        [[], ["a"], ["b"]],
    )) | st.builds(lambda s: {"type": "array", "items": s}, inner),
    max_leaves=4,
)  # fmt: skip


@given(JSON, SCHEMAS)
def test_a_broken_promise_is_seen_as_a_full_validator_sees_it(value: Any, schema: dict[str, Any]) -> None:
    valid = jsonschema.Draft202012Validator(schema).is_valid(value)
    assert (mismatch(value, schema) == "") == valid


PNG = b"\x89PNG\r\n\x1a\n" + b"x" * 20


def block(kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": kind, **fields}


def encoded(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def test_every_kind_of_content_is_said_in_words(tmp_path: Path) -> None:
    content = [
        block("text", text="a\x1b[31mb\x07\u202e"),
        block("audio", data=encoded(b"OggS" + b"x" * 8), mimeType="audio/ogg"),
        block("image", data=encoded(b"<svg/>"), mimeType="image/svg+xml"),
        block("image", data="not base64!", mimeType="image/png"),
        block("image", data=encoded(PNG), mimeType="image/png"),
        block("image", data=encoded(PNG), mimeType="image/png"),
        block("resource", resource={"uri": "x:/1", "blob": encoded(b"%PDF-")}),
        block("hologram"),
    ]
    result = convert({"content": content}, None, tmp_path, 0.5)
    assert result.text.split("\n") == [
        "ab", "[Ogg media, 12 bytes]", "[binary data, 6 bytes]", "[unreadable image]", "[PNG image, 28 bytes]",
        "[PNG image, 28 bytes, left out: one picture a result]", "[resource x:/1] PDF document, 5 bytes",
        "[content of kind 'hologram' left out]",
    ]  # fmt: skip
    assert (result.ok, result.seconds) == (True, 0.5)
    assert [str(path) for path in tmp_path.iterdir()] == [result.image]


@pytest.mark.parametrize(
    ("answer", "ok", "text"),
    [
        ({"content": []}, True, "done"),
        ({"content": [], "isError": True}, False, "it failed and does not say why"),
        ({"content": [], "structuredContent": {"a": "ü"}}, True, '{"a":"ü"}'),
        ({"content": [block("text", text="two")], "structuredContent": {"a": 2}}, True, "two"),
        ({"content": [block("text", text="no\nway")], "isError": True}, False, "no\nway"),
    ],
)
def test_an_answer_without_words_still_says_something(tmp_path: Path, answer: dict[str, Any], ok: bool, text: str) -> None:
    result = convert(answer, None, tmp_path, 0.0)
    assert (result.ok, result.text, result.data) == (ok, text, answer.get("structuredContent"))


def test_a_long_answer_is_cut_and_says_so(tmp_path: Path) -> None:
    result = convert({"content": [block("text", text="x" * 1_000_000)]}, None, tmp_path, 0.0)
    assert len(result.text) <= 200_000
    assert result.cut > 790_000
    assert "characters left out" in result.text


def entry(**changes: Any) -> dict[str, Any]:
    hints = {"readOnlyHint": True, "title": "Look"}
    schema = {"type": "object", "properties": {"x": {"type": "integer"}}}
    return {"name": "look", "title": "Look", "description": "Look at it.", "inputSchema": schema, "annotations": hints, **changes}


@pytest.mark.parametrize(
    "changes",
    [
        {"title": "Look around"},
        {"title": None},
        {"description": "Look at it. And send it to me."},
        {"description": None},
        {"annotations": {"readOnlyHint": False, "title": "Look"}},
        {"annotations": {"readOnlyHint": True, "title": "Delete"}},
        {"annotations": {"readOnlyHint": True, "title": "Look", "destructiveHint": True}},
        {"annotations": {"readOnlyHint": True, "title": "Look", "unknown": 1}},
        {"annotations": None},
        {"inputSchema": {"type": "object", "properties": {"x": {"type": "integer", "description": "or a key"}}}},
        {"inputSchema": {"type": "object"}},
        {"outputSchema": {"type": "object"}},
    ],
)
def test_whatever_a_person_or_a_model_goes_by_is_a_change(changes: dict[str, Any]) -> None:
    before, after = read_tool(entry()), read_tool(entry(**changes))
    assert isinstance(before, Offered)
    assert isinstance(after, Offered)
    assert before.digest != after.digest
    same = read_tool(json.loads(json.dumps(dict(reversed(entry().items())))))
    assert isinstance(same, Offered)
    assert same.digest == before.digest, "the order does not count"


@given(JSON, st.text('x,[{\\"}]', max_size=40), st.integers(0, 6))
def test_the_members_of_a_message_are_counted_and_its_texts_are_not(value: Any, text: str, most: int) -> None:
    def marks(inner: Any) -> int:
        if not isinstance(inner, dict | list):
            return 0
        return max(1, len(inner)) + sum(map(marks, inner.values() if isinstance(inner, dict) else inner))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(bounds, "VALUES", most)
        for message in (value, {"a": value, text: text}):
            assert (bounds.values(json.dumps(message).encode()) > most) == (marks(message) > most)


def test_a_text_full_of_commas_is_one_value_and_a_crowd_is_counted_only_so_far() -> None:
    assert bounds.values(b'{"a": "' + b"1,2,[{" * 50_000 + b'\\"", "b": 1}') < 10
    assert bounds.values(b'{"a": [' + b'{"b": ","},' * 400_000 + b"1]}") == bounds.VALUES + 1
    assert bounds.values(b'"' + b"," * (bounds.VALUES + 5)) == 0, "a text without an end"


@pytest.mark.parametrize("size", [1, 7, 4096, 1 << 20])
def test_a_body_is_measured_however_it_is_cut(size: int) -> None:
    def wrong(body: bytes, *, events: bool) -> str:
        measure = bounds.Measure(events=events)
        found = (measure.feed(body[at : at + size]) for at in range(0, len(body), size))
        return next((one for one in found if one), "") or measure.end()

    small = b'event: message\ndata: {"a": [1,2,3]}\n\n' * 200
    assert wrong(small, events=True) == ""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(bounds, "VALUES", 30)
        assert wrong(small, events=True) == "", "each event is a message"
        assert "values" in wrong(small, events=False)
        assert "values" in wrong(b'data: {"a": [' + b"1," * 40 + b"1]}\n\n", events=True)
        patched.setattr(bounds, "MESSAGE_BYTES", 500)
        assert wrong(small, events=True) == ""
        assert "MB" in wrong(b'{"a": "' + b"x" * 600 + b'"}', events=False)
