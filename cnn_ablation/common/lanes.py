"""Threads of one process that each train a job. What such a thread must know of the others; no torch here."""

from __future__ import annotations

import threading

turn = threading.RLock()
"""Held while something is read or changed that a process has once: the generators that layers draw from, filters of
warnings, what is being captured on a GPU. Only for as long as that takes: every other thread waits."""
