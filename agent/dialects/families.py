"""The dialects that model families were trained on, and one for all others.

Sources: the families' chat templates and model cards; where the card is silent, what the models write.
"""

from __future__ import annotations

from dataclasses import replace

from agent.dialects.base import Dialect, Thinking

# Qwen 2.5, Qwen 3, Hermes 2 and 3, Granite 4, MiMo, SmolLM3 with xml tools. Also what a model is taught whose template
# knows no tools: it is the format that most models have seen most of.
HERMES = Dialect(
    name="hermes", style="json", trigger="<tool_call>", call_open="<tool_call>\n", call_close="\n</tool_call>", separator="\n"
)
# One call a turn: a model that was never trained to call does not know when to stop.
GENERIC = replace(HERMES, name="generic", parallel=False)
QWEN_CODER = Dialect(
    name="qwen-coder", style="tagged", trigger="<tool_call>", call_open="<tool_call>\n<function=", after_name=">\n",
    parameter_open="<parameter=", parameter_middle=">\n", parameter_close="\n</parameter>\n",
    call_close="</function>\n</tool_call>", separator="\n", aliases=("<function=",),
)  # fmt: skip
LLAMA3 = Dialect(
    name="llama3", style="json", trigger='{"name"', arguments_key="parameters", parallel=False, only_at_start=True,
)  # fmt: skip
LFM2 = Dialect(
    name="lfm2", style="python", trigger="<|tool_call_start|>", section_open="<|tool_call_start|>[",
    section_close="]<|tool_call_end|>", separator=", ", pair="=",
)  # fmt: skip
GEMMA4 = Dialect(
    name="gemma4", style="gemma", trigger="<|tool_call>", call_open="<|tool_call>call:", call_close="<tool_call|>", quote='<|"|>',
    pair=":", comma=",",
)  # fmt: skip
FUNCTION_GEMMA = replace(
    GEMMA4, name="functiongemma", trigger="<start_function_call>", call_open="<start_function_call>call:",
    call_close="<end_function_call>", quote="<escape>",
)  # fmt: skip
MINISTRAL = Dialect(name="ministral", style="named", trigger="[TOOL_CALLS]", call_open="[TOOL_CALLS]", after_name="[ARGS]")
MISTRAL_SMALL = replace(MINISTRAL, name="mistral-small", id_open="[CALL_ID]")
MISTRAL_NEMO = Dialect(
    name="mistral-nemo", style="json", trigger="[TOOL_CALLS]", section_open="[TOOL_CALLS][", section_close="]", separator=", ",
    id_key="id",
)  # fmt: skip
MINICPM5 = Dialect(
    name="minicpm5", style="tagged", trigger='<function name="', call_open='<function name="', after_name='">',
    parameter_open='<param name="', parameter_middle='">', parameter_close="</param>", call_close="</function>", cdata=True,
    separator="\n",
)  # fmt: skip
GRANITE3 = Dialect(
    name="granite3", style="json", trigger="<|tool_call|>", section_open="<|tool_call|>[", section_close="]", separator=", ",
)  # fmt: skip
PHI4 = replace(GRANITE3, name="phi4", section_close="]<|/tool_call|>")
FUNCTIONARY31 = Dialect(
    name="functionary-3.1", style="named", trigger="<function=", call_open="<function=", after_name=">", call_close="</function>",
)  # fmt: skip
# Its generation prompt already ends with ">>>", so an answer is "all\ntext" or "name\n{...}", and each further part starts with
# ">>>".
FUNCTIONARY32 = Dialect(name="functionary-3.2", style="named", trigger=">>>", call_open=">>>", after_name="\n", text_name="all")
DEEPSEEK = Dialect(
    name="deepseek", style="named", trigger="<｜tool▁calls▁begin｜>", section_open="<｜tool▁calls▁begin｜>",
    call_open="<｜tool▁call▁begin｜>function<｜tool▁sep｜>", after_name="\n```json\n", call_close="\n```<｜tool▁call▁end｜>",
    separator="\n", section_close="<｜tool▁calls▁end｜>",
)  # fmt: skip
# Its answers are parts, each for a recipient and in a channel: `` to=functions.NAME<|channel|>commentary json<|message|>{...}``.
HARMONY = Dialect(
    name="harmony", style="named", trigger="to=functions.", call_open="to=functions.", parallel=False,
    after_name="<|channel|>commentary json<|message|>", also_after=("<|constrain|>json<|message|>",), call_close="<|call|>",
    silent=(
        "<|channel|>final", "<|channel|>commentary", "<|message|>", "<|end|>", "<|start|>assistant", "<|return|>", "<|call|>",
    ),
    aliases=("<|channel|>analysis to=functions.",),
)  # fmt: skip
COMMAND = Dialect(
    name="command", style="json", trigger="<|START_ACTION|>", section_open="<|START_ACTION|>[", section_close="\n]<|END_ACTION|>",
    call_open="\n    ", separator=",", before_name='"tool_call_id": "{0}", ', name_key="tool_name", arguments_key="parameters",
    silent=("<|START_RESPONSE|>", "<|END_RESPONSE|>", "<|START_TEXT|>", "<|END_TEXT|>"),
)  # fmt: skip
KIMI3 = Dialect(
    name="kimi-k3", style="tagged", trigger="<|close|>response<|sep|><|open|>tools<|sep|>", call_open='<|open|>call tool="',
    section_open="<|close|>response<|sep|><|open|>tools<|sep|>", section_close="<|close|>tools<|sep|>",
    call_close="<|close|>call<|sep|>", after_name='" index="{1}"<|sep|>', parameter_open='<|open|>argument key="',
    parameter_middle='" type="{type}"<|sep|>', parameter_close="<|close|>argument<|sep|>",
    aliases=('<|open|>tools<|sep|><|open|>call tool="',),
    silent=("<|open|>response<|sep|>", "<|close|>response<|sep|>", "<|close|>message<|sep|>", "<|end_of_msg|>"),
)  # fmt: skip
SOLAR = Dialect(
    name="solar", style="named", trigger="<|tool_calls|>", section_open="<|tool_calls|>", call_open="<|tool_call:begin|>",
    id_close="<|tool_call:name|>", after_name="<|tool_call:args|>", call_close="<|tool_call:end|>", section_close="<|calls|>",
    silent=("<|content|>", "<|begin|>assistant", "<|end|>"),
)  # fmt: skip

DIALECTS: dict[str, Dialect] = {
    d.name: d
    for d in (
        HERMES, GENERIC, QWEN_CODER, LLAMA3, LFM2, GEMMA4, FUNCTION_GEMMA, MINISTRAL, MISTRAL_SMALL, MISTRAL_NEMO, MINICPM5,
        GRANITE3, PHI4, FUNCTIONARY31, FUNCTIONARY32, DEEPSEEK,
        HARMONY, COMMAND, KIMI3, SOLAR,
    )
}  # fmt: skip

THINK = Thinking("<think>", "</think>")
MISTRAL_THINK = Thinking("[THINK]", "[/THINK]")
GEMMA_THINK = Thinking("<|channel>thought\n", "<channel|>")
COMMAND_THINK = Thinking("<|START_THINKING|>", "<|END_THINKING|>")
HARMONY_THINK = Thinking("<|channel|>analysis<|message|>", "<|end|>")
KIMI3_THINK = Thinking("<|open|>think<|sep|>", "<|close|>think<|sep|>")
SOLAR_THINK = Thinking("<|think|>", "<|end|>")
THOUGHTS = (THINK, MISTRAL_THINK, GEMMA_THINK, COMMAND_THINK, HARMONY_THINK, KIMI3_THINK, SOLAR_THINK)
