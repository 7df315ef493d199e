"""How many threads write, while other programs take cores away.

The threads of a computation wait for each other some hundred times a token. One whose core is taken by another program holds all
of them up, and a token then takes ten times as long: fewer threads, each on a core that is free, are much faster.
"""

from __future__ import annotations

_STEPS, _SECONDS = 8, 1.0  # of a look: so many tokens, or when they are slow so long
_STARVED = 0.8  # of the processor time that the threads could have had; below, some of them waited
_BETTER = 0.9  # of the time a token: what does not gain that much is no gain
_PATIENCE, _MOST_PATIENCE = 4, 64  # looks between two tries; doubled whenever one was no gain


class Pace:
    """The threads of decode: now and then another number is tried, and what is faster stays.

    Attributes:
        threads: that compute the next token, from 1 to ``most``.
    """

    def __init__(self, most: int) -> None:
        self.most = self.threads = most
        self._compared: tuple[int, float] | None = None  # the threads before, and the seconds a token that they took
        self._went_down = False
        self._patience, self._left = _PATIENCE, 0
        self._steps = 0
        self._seconds = self._processor = 0.0

    def took(self, seconds: float, processor: float) -> None:
        """Take note of a token.

        Args:
            seconds: that it took.
            processor: seconds of processor time that this process had meanwhile, all threads together.
        """
        self._steps += 1
        self._seconds += seconds
        self._processor += processor
        if self._steps >= _STEPS or self._seconds >= _SECONDS:
            self._look(self._seconds / self._steps, self._processor / max(1e-9, self._seconds * self.threads))
            self._steps, self._seconds, self._processor = 0, 0.0, 0.0

    def _look(self, pace: float, share: float) -> None:
        if self._compared is not None:
            before, usual = self._compared
            if pace < _BETTER * usual:
                self._patience = _PATIENCE
            elif self._went_down and share < _STARVED and self.threads > 1:
                self.threads -= 1  # more than one core is taken
                return
            else:
                self.threads, self._patience = before, min(2 * self._patience, _MOST_PATIENCE)
            self._compared, self._left = None, self._patience
            return
        self._left -= 1
        if self._left > 0:
            return
        if share < _STARVED and self.threads > 1 and not (self._went_down and self.threads < self.most):
            self._try(self.threads - 1, pace)
        elif self.threads < self.most:
            self._try(self.most, pace)

    def _try(self, threads: int, pace: float) -> None:
        self._compared, self._went_down, self.threads = (self.threads, pace), threads < self.threads, threads
