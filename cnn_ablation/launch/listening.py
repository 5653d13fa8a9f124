"""Observers, each in a thread of its own: what one of them costs in time or raises is no affair of the study's."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Mapping
from typing import Any

from cnn_ablation.common import progress
from cnn_ablation.launch.observers import Make

PATIENCE_SECONDS = 60.0
"""How long one call may take once the study is over; before that nobody waits."""
_MOST_SECONDS = 600.0  # in all, at the end
_HASTY_SECONDS = 10.0  # likewise, after an interruption
_QUIET_SECONDS = 2.0  # of waiting, before it is said
_POLL_SECONDS = 0.02


class Listener:
    """An observer that is told in its own thread.

    Args:
        name: in messages.
        make: makes it there.
    """

    def __init__(self, name: str, make: Make):
        self.name = name
        self._make = make
        self._queue = queue.SimpleQueue[tuple[str, tuple[Any, ...]] | None]()
        self._is_out = False
        self._doing = "beginning"
        self._busy_since: float | None = time.monotonic()
        self._thread = threading.Thread(target=self._listen, name=f"tracker {name}", daemon=True)
        self._thread.start()

    def tell(self, method: str, *content: Any) -> None:
        """Leaves word; the observer hears of it once it is through with what came before."""
        if not self._is_out:
            self._queue.put((method, content))

    def end(self) -> None:
        """Lets it go once it has heard all."""
        self.tell("close")
        self._queue.put(None)

    @property
    def is_busy(self) -> bool:
        return self._thread.is_alive() and not self._is_out

    def give_up(self, until: float) -> bool:
        """Whether nobody waits for it any more: one call takes too long, or all of them do."""
        now = time.monotonic()
        seconds = now - (self._busy_since or now)
        if seconds < PATIENCE_SECONDS and now < until:
            return False
        self._is_out = True
        progress.warn(
            f"tracker {self.name} has been at {self._doing} for {seconds:.0f} s: what it has not taken by now it lacks"
        )
        return True

    def _listen(self) -> None:
        observer = self._attempted("beginning", self._make)
        while not self._is_out and (word := self._queue.get()) is not None:
            method, content = word
            told = getattr(observer, method, None)
            if callable(told):
                self._attempted(method, told, *content)

    def _attempted(self, what: str, call: Any, *content: Any) -> Any:
        """What a call returned; one that raises is the last."""
        self._doing, self._busy_since = what, time.monotonic()
        try:
            return call(*content)
        except BaseException as error:  # a library may raise what it likes, SystemExit too
            if not self._is_out:
                text = " ".join(str(error).split())[:300]
                progress.warn(f"tracker {self.name} is left out from here on: {what}: {type(error).__name__}: {text}")
            self._is_out = True
        finally:
            self._busy_since = None
        return None


class Listeners:
    """All observers of a study."""

    def __init__(self, makers: Mapping[str, Make]):
        self._all = [Listener(name, make) for name, make in makers.items()]

    def tell(self, method: str, *content: Any) -> None:
        """Leaves word with all of them."""
        for each in self._all:
            each.tell(method, *content)

    def end(self, *, in_haste: bool = False) -> None:
        """Waits until all have heard all, as long as they get on with it; in haste, after an interruption, not long."""
        for each in self._all:
            each.end()
        began, is_said = time.monotonic(), False
        until = began + (_HASTY_SECONDS if in_haste else _MOST_SECONDS)
        waiting = [each for each in self._all if each.is_busy]
        while waiting := [each for each in waiting if each.is_busy and not each.give_up(until)]:
            time.sleep(_POLL_SECONDS)
            if not is_said and time.monotonic() - began > _QUIET_SECONDS:
                is_said = True
                progress.say(f"waiting for what trackers have to send: {', '.join(each.name for each in waiting)}")
