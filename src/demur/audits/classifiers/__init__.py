"""What a classifier that was made to forget still shows of the rows it forgot: pure functions of its outputs."""

from typing import TYPE_CHECKING

from demur.lazy import attach

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "activation_distance": "outputs",
        "average_gap": "outputs",
        "entropy": "attacks",
        "gaussian_lira": "lira",
        "kl_of_margins": "klom",
        "margins": "outputs",
        "mia_confidence": "attacks",
        "mia_entropy": "attacks",
        "mia_loss": "attacks",
        "modified_entropy": "attacks",
        "tug_of_war": "outputs",
        "u_lira": "lira",
        "zero_retrain_forgetting": "outputs",
    },
)

if TYPE_CHECKING:
    from demur.audits.classifiers.attacks import entropy as entropy
    from demur.audits.classifiers.attacks import mia_confidence as mia_confidence
    from demur.audits.classifiers.attacks import mia_entropy as mia_entropy
    from demur.audits.classifiers.attacks import mia_loss as mia_loss
    from demur.audits.classifiers.attacks import modified_entropy as modified_entropy
    from demur.audits.classifiers.klom import kl_of_margins as kl_of_margins
    from demur.audits.classifiers.lira import gaussian_lira as gaussian_lira
    from demur.audits.classifiers.lira import u_lira as u_lira
    from demur.audits.classifiers.outputs import activation_distance as activation_distance
    from demur.audits.classifiers.outputs import average_gap as average_gap
    from demur.audits.classifiers.outputs import margins as margins
    from demur.audits.classifiers.outputs import tug_of_war as tug_of_war
    from demur.audits.classifiers.outputs import zero_retrain_forgetting as zero_retrain_forgetting
