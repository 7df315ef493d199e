"""A conversation as it is shown: messages in order, the results with the answer that asked for them, and how many branches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.sessions.records import StoredMessage


@dataclass(frozen=True, slots=True)
class Entry:
    """A message of a person or of the model.

    Attributes:
        stored: the message as it is kept.
        results: of an answer, what its tools gave back, by the id of the call.
        siblings: ids of all messages that stand in its place, itself among them, oldest first.
    """

    stored: StoredMessage
    results: Mapping[str, StoredMessage] = field(default_factory=dict)
    siblings: tuple[int, ...] = ()

    @property
    def id(self) -> int:
        return self.stored.id

    @property
    def place(self) -> int:
        """Which of its siblings it is, from 1."""
        return self.siblings.index(self.id) + 1 if self.id in self.siblings else 1

    @property
    def mine(self) -> bool:
        """Whether a person said it."""
        return self.stored.message.role == "user"

    def neighbour(self, step: int) -> int | None:
        """The sibling so many places on, or None beyond the ends."""
        at = self.place - 1 + step
        return self.siblings[at] if 0 <= at < len(self.siblings) else None


def entries(messages: Iterable[StoredMessage], leaf: int | None) -> list[Entry]:
    """The entries from the first message to ``leaf``, out of the messages of all branches."""
    by_id = {m.id: m for m in messages}
    path: list[StoredMessage] = []
    at = leaf
    while at is not None and at in by_id and len(path) <= len(by_id):
        path.append(by_id[at])
        at = by_id[at].parent
    path.reverse()
    children: dict[int | None, list[int]] = {}
    for message in by_id.values():
        children.setdefault(message.parent, []).append(message.id)
    out: list[Entry] = []
    for stored in path:
        if stored.message.role == "tool" and out:
            last = out[-1]
            out[-1] = Entry(last.stored, {**last.results, stored.message.call_id: stored}, last.siblings)
        elif stored.message.role in ("user", "assistant"):
            out.append(Entry(stored, {}, tuple(sorted(children[stored.parent]))))
    return out


def question_before(shown: Sequence[Entry], id: int) -> Entry | None:
    """The person's message that an entry answers; the entry itself when it is a person's."""
    at = next((i for i, e in enumerate(shown) if e.id == id), -1)
    return next((e for e in reversed(shown[: at + 1]) if e.mine), None)
