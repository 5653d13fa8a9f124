"""What worker processes have in memory when they are forked: imported by the server process that forks them."""

from __future__ import annotations

import atexit
import gc
import os
import sys
import threading

from cnn_ablation.tasks.image_classification import compiled

_IN_SERVER = any("multiprocessing.forkserver" in word for word in sys.orig_argv)
if _IN_SERVER:
    gc.disable()  # most of what is imported stays: looking for garbage among it costs a fifth of the time
    atexit.register(os._exit, 0)  # taking the interpreter apart would take seconds, and whoever reads our output waits

# Compiled once, not in every worker, by a process of its own while this one imports.
_kernels = threading.Thread(target=compiled.library)
if _IN_SERVER:
    _kernels.start()

import pandas  # noqa: E402, F401
import sklearn.metrics  # noqa: E402, F401

import cnn_ablation.runs.run  # noqa: E402
import cnn_ablation.tasks.image_classification.run  # noqa: E402, F401

if _IN_SERVER:
    _kernels.join()
    gc.freeze()  # and never among it in the workers either
    gc.enable()
