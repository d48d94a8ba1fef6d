"""Runs a recipe and kills itself, as the operating system would, after some forward passes."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import torch

from demur.training import ForgetSettings, ObjectiveTrainer, forget

recipe, out, passes = sys.argv[1], sys.argv[2], int(sys.argv[3])
torch.set_num_threads(1)
original = ObjectiveTrainer.compute_loss
count = 0


def compute_loss(self: ObjectiveTrainer, *args: Any, **kwargs: Any) -> Any:
    """The trainer's own, until it is time."""
    global count
    count += 1
    if count > passes:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(self, *args, **kwargs)


ObjectiveTrainer.compute_loss = compute_loss  # type: ignore[method-assign]
forget(ForgetSettings.make(recipe), out)
