"""Many forgetting runs over objectives, settings and seeds: planned, run within a budget, and compared."""

from demur.lazy import attach

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "Configuration": "plan",
        "Point": "table",
        "Sweep": "table",
        "SweepSettings": "settings",
        "Trial": "trial",
        "configurations": "plan",
        "dominators": "pareto",
        "read_sweep": "table",
        "recommend": "table",
        "run_sweep": "run",
        "write_sweep_report": "report",
    },
)
