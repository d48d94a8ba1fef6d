"""Works on a ledger and is killed, as the operating system would, at one place after another.

Each attempt is a process of its own, forked before torch has done anything, so that they share only the imports.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import torch

from demur.requests import Ledger, processing
from demur.requests.store import Store
from demur.training import ObjectiveTrainer

torch.set_num_threads(1)


def killed_at(owner: Any, name: str, wanted: Callable[..., bool] = lambda *a, **k: True, after: int = 0) -> None:
    """Replace a function by one that kills the process when it is called as wanted for the `after + 1`st time."""
    original, count = getattr(owner, name), 0

    def function(*args: Any, **kwargs: Any) -> Any:
        nonlocal count
        if wanted(*args, **kwargs):
            count += 1
            if count > after:
                os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    setattr(owner, name, staticmethod(function) if isinstance(owner, type) and name == "append" else function)


PLACES: dict[str, Callable[[], None]] = {
    "before": lambda: killed_at(processing, "_prepare"),
    "training": lambda: killed_at(ObjectiveTrainer, "compute_loss", after=2),
    "trained": lambda: killed_at(processing, "_standing"),
    "measuring": lambda: killed_at(processing, "measured", lambda *a, **k: len(a) < 4),
    "writing": lambda: killed_at(Store, "append", lambda connection, event, *a: event == "done"),
    "written": lambda: killed_at(processing, "sweep", after=1),
}

for place in sys.argv[2:]:
    child = os.fork()
    if child == 0:
        PLACES[place]()
        Ledger.open(sys.argv[1]).process()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    print(place, "killed" if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL else status, flush=True)
