"""What worker processes have in memory when they are forked: imported by the server process that forks them."""

from __future__ import annotations

import atexit
import gc
import os
import sys

_IN_SERVER = any("multiprocessing.forkserver" in word for word in sys.orig_argv)
if _IN_SERVER:
    gc.disable()  # most of what is imported stays: looking for garbage among it costs a fifth of the time
    atexit.register(os._exit, 0)  # taking the interpreter apart would take seconds, and whoever reads our output waits

import pandas  # noqa: E402, F401
import sklearn.metrics  # noqa: E402, F401

# The optimisers import torch._dynamo when first used.
import torch._dynamo  # noqa: E402, F401

import cnn_ablation.runs.run  # noqa: E402
import cnn_ablation.tasks.image_classification.compiled  # noqa: E402

if _IN_SERVER:
    cnn_ablation.tasks.image_classification.compiled.library()  # compiled once, not in every worker
    gc.freeze()  # and never among it in the workers either
    gc.enable()
