"""Every way to write calls, also one that nobody has thought of: one description writes, constrains and reads them."""

from __future__ import annotations

import json
from contextlib import closing
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.dialects.base import Dialect, Thinking, fill
from agent.dialects.check import fault, read_back, refused
from agent.dialects.families import DIALECTS
from agent.dialects.probe import from_calls
from agent.dialects.seen import FIRST, SECOND
from agent.dialects.write import write_calls, write_turn
from agent.messages import Message, Segment, ToolCall, ToolSpec
from agent.templates.chat_template import ChatTemplate
from agent.templates.probe import call
from agent.templates.process import RenderJob
from tests.agent.dialects.test_dialects import ALL, calls_in, flat, read, text_in, thought_in
from tests.fixtures.call_templates import TEMPLATES
from tests.fixtures.generated import runs

FAST = settings(max_examples=runs(60), derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
WEATHER = ToolSpec("get_weather", "The weather.", {
    "type": "object",
    "properties": {
        "city": {"type": "string", "description": "Where."}, "days": {"type": "integer", "description": "How many."},
        "where": {
            "type": "object", "description": "The place.",
            "properties": {"lat": {"type": "number"}, "names": {"type": "array", "items": {"type": "string"}}},
        },
    },
    "required": ["city"], "additionalProperties": False,
})  # fmt: skip
TOOLS = {"get_weather": WEATHER}
HARD = {"city": "Nähe von \"Łódź\"\n{x} & 'y' \\ ]", "days": -3, "where": {"lat": 1.5, "names": ["a]", "b}", ""]}}
CALLS = [ToolCall("get_weather", HARD, "zfqid0001"), ToolCall("get_weather", {"city": ""}, "zfqid0002")]
MUSING = Thinking("{musing}", "{/musing}")

WORDS = st.sampled_from(["call", "tool", "fn", "use:it", "x1", "arg", "行", "tool▁call"])
TAGS = st.one_of(
    WORDS.map(lambda w: f"<{w}>"), WORDS.map(lambda w: f"<|{w}|>"), st.sampled_from(["[CALL]", "[TOOL_CALLS]", "[FN]"]),
    WORDS.map(lambda w: f"<｜{w}｜>"),
)  # fmt: skip
SPACES = st.sampled_from(["", "\n", " ", "\n    "])
KEYS = st.sampled_from(["name", "tool_name", "arguments", "parameters", "id", "call"])


def closing_of(tag: str) -> str:
    return tag[0] + "/" + tag[1:]


@st.composite
def dialects(draw: st.DrawFn) -> Dialect:
    """A description of calls with marks that no family has."""
    outer, inner, behind = draw(st.lists(TAGS, min_size=3, max_size=3, unique=True))
    gap, parallel, sectioned = draw(SPACES), draw(st.booleans()), draw(st.booleans())
    style = draw(st.sampled_from(["json", "named", "tagged", "python", "gemma"]))
    fields: dict[str, Any] = {}
    if style == "json":
        name, arguments, identity = draw(st.lists(KEYS, min_size=3, max_size=3, unique=True))
        pair, comma = draw(st.sampled_from([(": ", ", "), (":", ",")]))
        fields = {"name_key": name, "arguments_key": arguments, "id_key": draw(st.sampled_from(["", identity])), "pair": pair,
                  "comma": comma, "before_name": draw(st.sampled_from(["", '"number": "{0}",']))}  # fmt: skip
    elif style == "named":
        fields = {"after_name": draw(st.sampled_from([behind, behind + "\n", f":{{0}}{behind}", f"{behind}json\n"]))}
    elif style == "tagged":
        key = draw(st.sampled_from([
            ("<param=", ">", "</param>"), ('<p name="', '">\n', "\n</p>\n"), ("<k>", "</k>\n<v>", "</v>\n"),
            ("<k>", "</k><v>", "</v>"),
            ('<p key="', '" type="{type}">', "</p>"), ('<p key="', '" text="{string}">', "</p>\n"),
        ]))  # fmt: skip
        fields = dict(zip(("parameter_open", "parameter_middle", "parameter_close"), key, strict=True))
        fields["after_name"] = draw(st.sampled_from([behind, "\n", ""] if key[0] == "<k>" else [behind, behind + "\n"]))
    elif style == "gemma":
        fields = {"quote": draw(st.sampled_from(['<|"|>', "<q>"])), "pair": ":", "comma": ","}
    else:
        fields = {"pair": "="}
    if sectioned:
        listed = draw(st.booleans()) and style in ("json", "python")
        marks = {
            "section_open": outer + ("[" if listed else gap), "section_close": ("]" if listed else gap) + closing_of(outer),
            "call_open": "" if listed else inner + gap, "call_close": "" if listed else closing_of(inner),
            "separator": ", " if listed else draw(SPACES),
        }  # fmt: skip
    else:
        marks = {"call_open": inner + gap, "call_close": gap + closing_of(inner), "separator": draw(SPACES)}
    return Dialect("generated", style, outer if sectioned else inner, parallel=parallel, **marks, **fields)  # type: ignore[arg-type]


def segments_of(text: str) -> list[Segment]:
    return [Segment(text, trusted=True)]


def whole_trip(dialect: Dialect) -> None:
    """One call and several: written, constrained, read back at once and by characters, between a thought and more words."""
    for calls in (CALLS[:1], CALLS[1:], *([CALLS] if dialect.parallel else [])):
        written = write_calls(dialect, calls, TOOLS)
        wanted = [(c.name, c.arguments) for c in calls]
        assert refused(dialect, written, [WEATHER]) == ""
        assert read_back(dialect, flat(written), TOOLS) == wanted
        assert read_back(dialect, list(flat(written)), TOOLS) == wanted
        if dialect.text_name:
            continue
        turn = Message("assistant", "" if dialect.only_at_start else "Let me look.", "hm", tuple(calls))
        text = flat(write_turn(dialect, MUSING, turn, TOOLS)) + "\nDone."
        pieces = read(dialect, text, thinking=MUSING, tools=TOOLS)
        assert [(c.name, c.arguments) for c in calls_in(pieces)] == wanted
        assert (thought_in(pieces), text_in(pieces)) == ("hm", "Done." if dialect.only_at_start else "Let me look.\nDone.")
        assert read(dialect, list(text), thinking=MUSING, tools=TOOLS) == pieces


@ALL
def test_a_family_reads_what_it_writes(dialect: Dialect) -> None:
    assert fault(dialect) == ""
    whole_trip(dialect)


@FAST
@given(dialects())
def test_a_way_that_nobody_has_thought_of_is_read_too(dialect: Dialect) -> None:
    assert fault(dialect) == ""
    whole_trip(dialect)


@FAST
@given(dialects())
def test_what_is_written_tells_how_it_is_written(dialect: Dialect) -> None:
    """From the text of one call and of two, the probe finds a description that reads both; or it says that it does not."""
    seen = [ToolCall(c.name, c.arguments, c.id) for c in (FIRST, SECOND)]
    one, two = (flat(write_calls(dialect, seen[:n], {})) for n in (1, 2))
    found, why = from_calls(one, two if dialect.parallel else None)
    if found is None:
        assert why
        return
    kinds = {"zfqa": {"type": "string"}, "zfqb": {"type": "string"}, "zfqn": {"type": "integer"}}
    spec = {n: ToolSpec(n, "", {"type": "object", "properties": kinds}) for n in (FIRST.name, SECOND.name)}
    assert read_back(found, one, spec) == [(FIRST.name, FIRST.arguments)]
    if found.parallel:
        assert read_back(found, two, spec) == [(c.name, c.arguments) for c in (FIRST, SECOND)]


def rendered(template: ChatTemplate, arguments: dict[str, Any], count: int) -> str:
    """What the template itself writes for an assistant's calls, behind the user's message."""
    profile = template.profile
    made = [call(FIRST, profile.arguments) for _ in range(count)]
    for one in made:
        given = arguments if profile.arguments == "object" else json.dumps(arguments, ensure_ascii=False)
        one["function"] = {"name": "get_weather", "arguments": given}
    content = None if profile.null_content else ""
    chat = [{"role": "user", "content": "Zfquser"}, {"role": "assistant", "content": content, "tool_calls": made}]
    jobs = [RenderJob(chat, tools, False) for tools in ([WEATHER.as_openai()], None)]  # some refuse a tool without this or that
    done = next(done for done in template._process.render(jobs) if done.error is None)
    return done.text[done.text.rfind("Zfquser") + len("Zfquser") :]


def own_calls(template: ChatTemplate, arguments: dict[str, Any], count: int) -> str:
    """The same, from the first mark of a call on."""
    dialect = template.profile.dialect
    text = rendered(template, arguments, count)
    opening = (dialect.section_open + dialect.call_open).strip() or "{"
    at = text.find(opening)
    if at < 0:  # a template with white space of its own in it
        at = text.find(dialect.trigger)
    closes = (dialect.section_close.strip(), dialect.call_close.strip(), "}")
    close = next(close for close in closes if close and close in text)
    return text[at : text.rfind(close) + len(close)]


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_of_each_shape_is_read_and_constrained(name: str) -> None:
    source, wanted = TEMPLATES[name]
    with closing(ChatTemplate(source)) as template:
        profile = template.profile
        assert (profile.dialect.style if profile.calls else "generic") == wanted, profile.note
        if not profile.calls:
            assert "cannot be read back" in profile.note
            assert profile.dialect is DIALECTS["generic"] or profile.dialect.name == "generic"
            return
        whole_trip(profile.dialect)
        for count in (1, 2) if profile.parallel else (1,):
            text = own_calls(template, {"city": "Łódź, a b", "days": 3}, count)
            assert read_back(profile.dialect, text, TOOLS) == [("get_weather", {"city": "Łódź, a b", "days": 3})] * count, text
            assert refused(profile.dialect, segments_of(text), [WEATHER]) == "", text


def test_holes_are_filled_in() -> None:
    assert fill(":{0}<x>{1}", 4) == ":4<x>5"
    assert fill('" type="{type}">', kind="string") == '" type="string">'
    assert fill('" s="{string}" {name}', kind="object", name="f") == '" s="false" f'
