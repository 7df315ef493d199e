"""Which tokens lie in which sequence of the cache, and how a conversation gets the longest part of them for nothing."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from agent.engine.llama import Context
from agent.engine.prefix_store import PrefixStore

MIN_PREFIX = 64  # tokens from which on a saved or shared prefix is worth its bytes
_CHECKPOINTS = 4
_MIN_SHARED = 16


@dataclass(slots=True)
class Snapshot:
    """What cannot be rolled back, as it was after ``count`` tokens."""

    count: int
    data: bytearray


@dataclass(slots=True)
class Slot:
    """One sequence of the cache."""

    number: int  # llama.cpp's id of it
    owner: str = ""  # the conversation whose tokens it holds; empty when it is free
    tokens: list[int] = field(default_factory=list)  # what is in the cache, in order
    busy: bool = False  # an answer is being computed in it
    used: int = 0  # a counter of uses; the smallest goes first
    checkpoints: list[Snapshot] = field(default_factory=list)  # for models that cannot forget a part, oldest first


def common(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the common prefix."""
    n = min(len(a), len(b))
    if a[:n] == b[:n]:
        return n
    low, high = 0, n
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if a[low:middle] == b[low:middle] else (low, middle)
    return low


class Sequences:
    """All sequences of one context."""

    def __init__(self, context: Context, store: PrefixStore | None) -> None:
        self.context, self.store = context, store
        self.slots = [Slot(i) for i in range(context.settings.n_seq)]
        self._uses = 0
        self._whole = context.model.partial_rollback

    def acquire(self, owner: str, tokens: list[int], prefix: int, *, whole: bool = False) -> tuple[Slot, int, str] | None:
        """A sequence that holds as many of a conversation's tokens as can be had, at most all but the last; or all (``whole``).

        For the first ``prefix`` of them a saved state may exist. With the slot come how many tokens it holds already, and where
        they came from: "memory", "shared", "disk" or "". None when all sequences are busy.
        """
        slot = self._slot(owner)
        if slot is None:
            return None
        if slot.owner != owner:
            self.forget(slot)
        self._uses += 1
        slot.owner, slot.busy, slot.used = owner, True, self._uses
        if whole and common(slot.tokens, tokens) == len(tokens):
            return slot, len(tokens), "memory"  # what stands behind them may be needed, too
        most = len(tokens) - (not whole)
        have = self._rolled_back(slot, min(common(slot.tokens, tokens), most))
        source = "memory" if have else ""
        shared = self._share(slot, tokens, most, have)
        if shared > have:
            have, source = shared, "shared"
        if MIN_PREFIX <= prefix <= most and have < prefix and self._restore(slot, tokens[:prefix]):
            have, source = prefix, "disk"
        return slot, have, source

    def _slot(self, owner: str) -> Slot | None:
        own = next((s for s in self.slots if s.owner == owner), None)
        if own is not None:
            return None if own.busy else own
        idle = [s for s in self.slots if not s.busy]
        return min(idle, key=lambda s: (bool(s.owner), s.used), default=None)

    def _rolled_back(self, slot: Slot, count: int) -> int:
        """Make the sequence hold its first ``count`` tokens, or as many before that as it can; returns how many."""
        if count == len(slot.tokens):
            return count
        slot.checkpoints = [c for c in slot.checkpoints if c.count <= count]
        if self._whole and count and self.context.remove(slot.number, count):
            del slot.tokens[count:]
            return count
        if not self._whole and slot.checkpoints:
            last = slot.checkpoints[-1]
            # First the attention's part, which can forget, then the state that only a copy brings back.
            self.context.remove(slot.number, last.count)
            if self.context.set_state(slot.number, last.data, partial=True):
                self.context.remove(slot.number, last.count)
                if self.context.position_max(slot.number) == last.count - 1:
                    del slot.tokens[last.count :]
                    return last.count
        self.clear(slot)
        return 0

    def _share(self, slot: Slot, tokens: list[int], most: int, have: int) -> int:
        """Take the beginning over from another sequence, which costs nothing where a cache can be shared in part."""
        if not self._whole:
            return 0
        other = max((s for s in self.slots if s is not slot), key=lambda s: common(s.tokens, tokens), default=None)
        if other is None:
            return 0
        count = min(common(other.tokens, tokens), most)
        if count < max(_MIN_SHARED, have + 1):
            return 0
        self.clear(slot)
        self.context.copy(other.number, slot.number, count)
        slot.tokens = tokens[:count]
        return count

    def _restore(self, slot: Slot, prefix: list[int]) -> bool:
        data = self.store.load(prefix) if self.store else None
        if data is None:
            return False
        self.clear(slot)
        if not self.context.set_state(slot.number, data) or self.context.position_max(slot.number) != len(prefix) - 1:
            self.clear(slot)
            return False
        slot.tokens = list(prefix)
        self.checkpoint(slot)
        return True

    def save_prefix(self, slot: Slot, prefix: list[int]) -> None:
        """Keep the state of a sequence that holds exactly the fixed prefix; the disk is written beside the computation."""
        if self.store is not None and len(prefix) >= MIN_PREFIX:
            data = self.context.state(slot.number)
            if data:
                threading.Thread(target=self.store.save, args=(prefix, data), name="prefix").start()

    def checkpoint(self, slot: Slot) -> None:
        """Remember this point, for models that cannot roll back to it."""
        count = len(slot.tokens)
        if self._whole or not count or any(c.count == count for c in slot.checkpoints):
            return
        data = self.context.state(slot.number, partial=True)
        if data:
            slot.checkpoints.append(Snapshot(count, data))
        if len(slot.checkpoints) > _CHECKPOINTS:
            del slot.checkpoints[1]  # the first is the fixed prefix's, to which everything can go back

    def make_room(self, needed_by: Slot) -> bool:
        """Forget the idle sequence that was used longest ago; False when there is none."""
        idle = [s for s in self.slots if not s.busy and s.tokens and s is not needed_by]
        if not idle:
            return False
        self.forget(min(idle, key=lambda s: s.used))
        return True

    def forget(self, slot: Slot) -> None:
        self.clear(slot)
        slot.owner = ""

    def drop(self, owner: str) -> None:
        """The conversation is over."""
        for slot in self.slots:
            if slot.owner == owner and not slot.busy:
                self.forget(slot)

    def clear(self, slot: Slot) -> None:
        """Forget what a sequence holds, but not whose it is."""
        self.context.remove(slot.number, -1)
        slot.tokens.clear()
        slot.checkpoints.clear()
