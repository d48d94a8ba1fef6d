"""Before and around training: what people may be told about a decision, and whether it stays true."""

from typing import TYPE_CHECKING

from demur.lazy import attach

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "Answers": "answers",
        "Counterfactual": "recourse",
        "LinearFit": "linear",
        "Network": "network",
        "RecourseSettings": "answers",
        "Refit": "refits",
        "RobustCounterfactual": "recourse",
        "Validity": "refits",
        "deletion_influence": "influence",
        "fit_linear": "linear",
        "recourse_run": "answers",
        "train_network": "network",
        "validity": "refits",
        "worst_deletions": "influence",
    },
)

if TYPE_CHECKING:
    from demur.protect.answers import Answers as Answers
    from demur.protect.answers import RecourseSettings as RecourseSettings
    from demur.protect.answers import recourse_run as recourse_run
    from demur.protect.influence import deletion_influence as deletion_influence
    from demur.protect.influence import worst_deletions as worst_deletions
    from demur.protect.linear import LinearFit as LinearFit
    from demur.protect.linear import fit_linear as fit_linear
    from demur.protect.network import Network as Network
    from demur.protect.network import train_network as train_network
    from demur.protect.recourse import Counterfactual as Counterfactual
    from demur.protect.recourse import RobustCounterfactual as RobustCounterfactual
    from demur.protect.refits import Refit as Refit
    from demur.protect.refits import Validity as Validity
    from demur.protect.refits import validity as validity
