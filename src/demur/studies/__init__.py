"""One file per paper that re-checks its claim at a size that runs here, and what runs and reports them."""

from demur.lazy import attach

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "Claim": "results",
        "NotMeasured": "registry",
        "Part": "registry",
        "PartResult": "results",
        "Progress": "registry",
        "Study": "registry",
        "StudyResult": "results",
        "read_results": "report",
        "results_page": "report",
        "run_studies": "runner",
        "studies": "registry",
        "study": "registry",
    },
)
