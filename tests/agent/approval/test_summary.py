"""What a person says yes to hides nothing, and its risks stand where they are marked."""

from __future__ import annotations

import pytest

from agent.approval.policy import describe
from agent.messages import ToolCall, ToolSpec
from agent.tools.define import Tool

FAMILY = "👨\u200d👩\u200d👦"


WRITE = Tool(ToolSpec("write"), lambda **_: "", subjects={"path": "path"})
RUN = Tool(ToolSpec("run"), lambda **_: "", subjects={"command": "command"})


@pytest.mark.parametrize("hidden", ["\u200d", "\u200c", "\u2067", "\ufe0f", "\u202e", "\ue000"])
def test_a_joiner_in_a_command_or_a_path_is_shown_and_marked(hidden: str) -> None:
    for made, arguments in ((RUN, {"command": f"rm می{hidden}خ"}), (WRITE, {"path": f"می{hidden}خ", "content": ""})):
        summary, risks = describe(made, ToolCall(made.spec.name, arguments))
        assert hidden not in summary
        sign = f"<U+{ord(hidden):04X}>"
        assert (sign, "stands for what cannot be seen") in [(summary[start:end], why) for start, end, why in risks]


def test_a_text_to_be_written_is_shown_as_it_reads_and_only_the_rest_is_marked() -> None:
    content = f"می\u200cخواهم {FAMILY}\nline two \u202e\n\u2067שלום\u2069 \x1b[2J"
    summary, risks = describe(WRITE, ToolCall("write", {"path": "a.txt", "content": content}))
    assert f"می\u200cخواهم {FAMILY}\n    line two <U+202E>\n    \u2067שלום\u2069 ␛[2J" in summary
    assert [summary[start:end] for start, end, _ in risks] == ["<U+202E>", "␛"]
