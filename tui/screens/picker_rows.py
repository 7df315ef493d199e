"""How a model, or a conversation to go on with, looks in the list, and what is said about it below."""

from __future__ import annotations

from textual.content import Content

from agent.files import human_size
from agent.models.choices import ModelChoice
from agent.models.demo import TITLE
from agent.text import display
from tui.offers import LastTalk, why_not

PickerRow = LastTalk | ModelChoice | None  # None stands for a file elsewhere
ONE_LINE = 96  # columns from which a model takes one line
_FEW = 60  # columns below which words are left out
_NAME_MOST = 200


def row_content(row: PickerRow, width: int) -> Content:
    """A row for so many columns: one line, or two where they are few."""
    if row is None:
        return Content("  Another file …")
    if isinstance(row, LastTalk):
        return _last(row, width)
    shade = "" if row.fits else "dim"
    name = Content.assemble("  ", (shown_name(row), shade or "bold"), (_notes(row), shade))
    verdict, kind, size, context, need = _facts(row)
    if width < _FEW:
        return Content("\n").join([name, Content.styled(f"  {_short_facts(row)}", shade)])
    if width < ONE_LINE:
        facts = " · ".join(part for part in (verdict, kind, size, context, need) if part)
        return Content("\n").join([name, Content.styled(f"  {facts}", shade)])
    table = f"{kind[:8]:<8} {size:>9}  {context:<13} {need:<15} {verdict:<12}"
    return Content.assemble(name.truncate(width - len(table) - 2, ellipsis=True, pad=True), "  ", (table, shade))


def _last(row: LastTalk, width: int) -> Content:
    title, model = _title(row), shown_name(row.model)
    if width < ONE_LINE:
        return Content("\n").join([Content.assemble("  ", (f"Go on: {title}", "bold")), Content(f"  {model}")])
    room = max(10, width - len(model) - 5)
    first = Content.styled(f"Go on: {title}", "bold").truncate(room, ellipsis=True)
    return Content.assemble("  ", first, f" · {model}")


def _facts(model: ModelChoice) -> tuple[str, str, str, str, str]:
    """Verdict, quantization, size, context, memory; "" for what is not known."""
    verdict = "✓ fits" if model.fits else "✗ too large" if model.need else "✗ not usable"
    context = _tokens(model.context or model.trained)
    need = f"{human_size(model.need)} memory" if model.need else ""
    return verdict, model.type, human_size(model.size), f"{context} context" if context else "", need


def _short_facts(model: ModelChoice) -> str:
    """The same without the words, for a phone; what it means stands below the list."""
    verdict, kind, size, _, _ = _facts(model)
    if not model.fits:
        return " · ".join(part for part in (verdict, kind, size) if part)
    return f"✓ {kind} · {size} · {_tokens(model.context)} · {human_size(model.need)} RAM"


def _tokens(n: int) -> str:
    return "" if not n else f"{n // 1024}k" if n % 1024 == 0 else f"{n:,}"


def _notes(model: ModelChoice) -> str:
    words = (["demo, comes with Sprig"] if model.demo else []) + (["used last"] if model.last else [])
    return "".join(f" · {word}" for word in words)


def shown_name(model: ModelChoice) -> str:
    """What a person calls it, safe to show."""
    return TITLE if model.demo else display(model.name[:_NAME_MOST])


def _title(row: LastTalk) -> str:
    return display(" ".join(row.title[:_NAME_MOST].split())) or "Untitled"


def about(row: PickerRow) -> str:
    """All about a row in a sentence or two, safe to show."""
    if row is None:
        return "Type the path of a GGUF file."
    if isinstance(row, LastTalk):
        return f"Opens this conversation again, with {shown_name(row.model)}."
    if not row.fits:
        return f"{shown_name(row)}: {display(why_not(row))}"
    title = f"{display(row.title[:_NAME_MOST])}: " if row.title else ""
    return f"{title}takes {human_size(row.need)} of memory with a context of {row.context:,} tokens."


def searched(row: PickerRow) -> str:
    """The text that a filter looks in."""
    if row is None:
        return ""
    if isinstance(row, LastTalk):
        return f"go on {row.title} {row.model.name}".lower()
    return f"{row.name} {row.title} {row.type} {_notes(row)}".lower()
