"""Chat templates: good ones are understood, bad ones end in one line, soon, and in a process of their own."""

from __future__ import annotations

import time

import pytest

from agent.errors import VocabError
from agent.templates import server
from agent.templates.probe import CHAT, TemplateReport, check_template

CHATML = """{% for message in messages %}{% if loop.first and message['role'] != 'system' %}{{ bos_token }}{% endif %}
{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""

TOOLS = """{%- if tools %}{{ 'Tools: ' }}{%- for tool in tools %}{{ tool | tojson(indent=2) }}{% endfor %}{% endif %}
{%- for message in messages %}
    {%- if message.role == 'system' %}{% continue %}{% endif %}
    {%- generation %}{{ message.role }}: {{ message.content | trim }}
{% endgeneration %}
{%- endfor %}{{ strftime_now('%Y')[:2] }}{% set ns = namespace(last=messages[-1].role) %}{{ ns.last }}"""

NO_SYSTEM = """{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{%- for m in messages %}{{ m.content }}{% endfor %}"""

ENDLESS = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
DOUBLING = "{% set ns = namespace(s='ab') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}"

REFUSED = {
    "{% if": r"does not parse \(line 1",
    "{{ 1 | no_such_filter }}": "does not parse",
    "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}": "does not parse",
    ENDLESS: "did not end within 1 s of processor time",
    DOUBLING: "takes too much memory",
    "{{ 'a' * 10 ** 10 }}": "takes too much memory",
    "{% for i in range(9999) %}{{ 'spam' * 999 }}{% endfor %}": "writes more than 1000000 characters",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}": "never stops calling itself",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}": "leave its sandbox",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}": "leave its sandbox",
    "{{ (messages | attr('__class__')).__base__ }}": "leave its sandbox",
    "{{ messages.clear() }}": "leave its sandbox",
    "{% set ns = namespace() %}{% set ns.__class__ = 1 %}": "leave its sandbox",
    "x" * 300_000: "more than 262144 are not accepted",
}


@pytest.mark.parametrize("template", REFUSED, ids=range(len(REFUSED)))
def test_a_broken_or_hostile_template_ends_in_one_line(template: str) -> None:
    started = time.monotonic()
    with pytest.raises(VocabError, match=REFUSED[template]) as caught:
        check_template(template)
    assert "\n" not in str(caught.value)
    assert time.monotonic() - started < 60


@pytest.mark.parametrize(
    "template",
    ["{{ '{0.__class__}'.format(messages) }}", "{{ raise_exception.__globals__ }}", "{{ ''|attr('__class__') }}"],
)
def test_what_a_template_must_not_see_is_empty(template: str) -> None:
    assert rendered(template) == ""


def rendered(template: str) -> str:
    variables = {
        "messages": CHAT, "tools": None, "documents": None, "add_generation_prompt": True,
        "bos_token": "<s>", "eos_token": "</s>",
    }  # fmt: skip
    text, error = server.rendered(server.compiled(server.environment(), template), variables, 10_000)
    assert error is None
    return text


def test_a_template_that_waits_for_the_clock_is_killed_by_the_clock() -> None:
    with pytest.raises(VocabError, match="did not end"):
        check_template(ENDLESS, timeout=0.3)


def test_chatml_knows_system_messages_and_no_tools() -> None:
    assert check_template(CHATML, bos="<s>") == TemplateReport(True, True, False, None)


def test_tools_loop_controls_generation_marks_and_dates_work() -> None:
    assert check_template(TOOLS) == TemplateReport(True, False, True, None)


@pytest.mark.slow
def test_three_conversations_share_the_room_for_output() -> None:
    much = "{% for i in range(400) %}{{ 'x' * 1000 }}{% endfor %}"
    with pytest.raises(VocabError, match="writes more than 1000000 characters"):
        check_template(much)
    assert check_template(much.replace("400", "300")).renders


def test_a_template_may_refuse_a_system_message() -> None:
    assert check_template(NO_SYSTEM) == TemplateReport(True, False, False, None)


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{{ raise_exception('only\x1b[31m red') }}", "only␛[31m red"),
        ("{{ messages[0].content.nothing.there }}", "has no attribute 'nothing'"),
        ("{{ no_such_function() }}", "is undefined"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{{ range(1000000) | list }}", "Range too big"),
    ],
)
def test_a_template_that_gives_up_says_why(template: str, says: str) -> None:
    report = check_template(template)
    assert not report.renders
    assert says in str(report.error)
    assert "\n" not in str(report.error)


@pytest.mark.parametrize(
    "template", [CHATML, TOOLS.replace("%Y", "x"), "{{ messages | tojson }}", "  {% if true %}  \n x{% endif %}\n"]
)
def test_what_is_rendered_is_what_transformers_renders(template: str) -> None:
    template_utils = pytest.importorskip("transformers.utils.chat_template_utils")  # takes seconds, so only here
    theirs, _ = template_utils.render_jinja_template(
        [CHAT], chat_template=template, add_generation_prompt=True, bos_token="<s>", eos_token="</s>"
    )
    assert rendered(template) == theirs[0]
