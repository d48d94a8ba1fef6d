"""What a classifier that was made to forget still shows of the rows it forgot."""

from typing import TYPE_CHECKING

from demur.lazy import attach

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "ClassifierReport": "suite",
        "ClassifierSettings": "suite",
        "CorrectiveBenchmark": "corrective",
        "FoundSet": "worst_case",
        "Measured": "measured",
        "Measurement": "scores",
        "Populations": "populations",
        "Relearning": "relearning",
        "RepresentationAudit": "representation",
        "ThresholdAttack": "attacks",
        "UnlearnSplits": "measured",
        "WorstCaseForgetSet": "worst_case",
        "activation_distance": "outputs",
        "anamnesis_index": "relearning",
        "average_gap": "outputs",
        "entropy": "attacks",
        "evaluate": "scores",
        "evaluate_populations": "populations",
        "forget_set_difficulty": "worst_case",
        "gaussian_lira": "lira",
        "kl_of_margins": "klom",
        "margins": "outputs",
        "measure": "measured",
        "mia_class_threshold": "attacks",
        "mia_confidence": "attacks",
        "mia_entropy": "attacks",
        "mia_loss": "attacks",
        "modified_entropy": "attacks",
        "output_kl": "outputs",
        "prediction_agreement": "outputs",
        "project_capped_simplex": "worst_case",
        "rank_by_loss": "worst_case",
        "relearn": "relearning",
        "relearn_time": "relearning",
        "run_classifiers": "suite",
        "top_related_classes": "representation",
        "train_populations": "populations",
        "tug_of_war": "outputs",
        "u_lira": "lira",
        "u_lira_tpr": "lira",
        "zero_retrain_forgetting": "outputs",
    },
)

if TYPE_CHECKING:
    from demur.audits.classifiers.attacks import ThresholdAttack as ThresholdAttack
    from demur.audits.classifiers.attacks import entropy as entropy
    from demur.audits.classifiers.attacks import mia_class_threshold as mia_class_threshold
    from demur.audits.classifiers.attacks import mia_confidence as mia_confidence
    from demur.audits.classifiers.attacks import mia_entropy as mia_entropy
    from demur.audits.classifiers.attacks import mia_loss as mia_loss
    from demur.audits.classifiers.attacks import modified_entropy as modified_entropy
    from demur.audits.classifiers.corrective import CorrectiveBenchmark as CorrectiveBenchmark
    from demur.audits.classifiers.klom import kl_of_margins as kl_of_margins
    from demur.audits.classifiers.lira import gaussian_lira as gaussian_lira
    from demur.audits.classifiers.lira import u_lira as u_lira
    from demur.audits.classifiers.lira import u_lira_tpr as u_lira_tpr
    from demur.audits.classifiers.measured import Measured as Measured
    from demur.audits.classifiers.measured import UnlearnSplits as UnlearnSplits
    from demur.audits.classifiers.measured import measure as measure
    from demur.audits.classifiers.outputs import activation_distance as activation_distance
    from demur.audits.classifiers.outputs import average_gap as average_gap
    from demur.audits.classifiers.outputs import margins as margins
    from demur.audits.classifiers.outputs import output_kl as output_kl
    from demur.audits.classifiers.outputs import prediction_agreement as prediction_agreement
    from demur.audits.classifiers.outputs import tug_of_war as tug_of_war
    from demur.audits.classifiers.outputs import zero_retrain_forgetting as zero_retrain_forgetting
    from demur.audits.classifiers.populations import Populations as Populations
    from demur.audits.classifiers.populations import evaluate_populations as evaluate_populations
    from demur.audits.classifiers.populations import train_populations as train_populations
    from demur.audits.classifiers.relearning import Relearning as Relearning
    from demur.audits.classifiers.relearning import anamnesis_index as anamnesis_index
    from demur.audits.classifiers.relearning import relearn as relearn
    from demur.audits.classifiers.relearning import relearn_time as relearn_time
    from demur.audits.classifiers.representation import RepresentationAudit as RepresentationAudit
    from demur.audits.classifiers.representation import top_related_classes as top_related_classes
    from demur.audits.classifiers.scores import Measurement as Measurement
    from demur.audits.classifiers.scores import evaluate as evaluate
    from demur.audits.classifiers.suite import ClassifierReport as ClassifierReport
    from demur.audits.classifiers.suite import ClassifierSettings as ClassifierSettings
    from demur.audits.classifiers.suite import run_classifiers as run_classifiers
    from demur.audits.classifiers.worst_case import FoundSet as FoundSet
    from demur.audits.classifiers.worst_case import WorstCaseForgetSet as WorstCaseForgetSet
    from demur.audits.classifiers.worst_case import forget_set_difficulty as forget_set_difficulty
    from demur.audits.classifiers.worst_case import project_capped_simplex as project_capped_simplex
    from demur.audits.classifiers.worst_case import rank_by_loss as rank_by_loss
