"""All benchmarks, one after another: `python -m benchmarks`."""

from __future__ import annotations

import subprocess
import sys

for name in (
    "unlearning_step",
    "lora",
    "tofu_audit",
    "many_audits",
    "tofu_methods",
    "sequence",
    "guard_overhead",
    "dpo_step",
    "ches",
    "classifier_methods",
    "ssd",
    "ensembles",
    "attribution",
):
    print(f"== {name}", flush=True)
    subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=True)
