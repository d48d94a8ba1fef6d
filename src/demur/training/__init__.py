"""One trainer for every objective: full weights or LoRA, cached references, exact resume."""

from demur.lazy import attach

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "AlignIns": "aggregators",
        "FedAvg": "aggregators",
        "ForgetSettings": "settings",
        "FreqFed": "aggregators",
        "MESAS": "aggregators",
        "MultiKrum": "aggregators",
        "Objective": "objective",
        "ObjectiveTrainer": "trainer",
        "Plan": "plan",
        "PrototypeRelationDistillation": "continual",
        "ReferenceScores": "references",
        "RefuseSettings": "settings",
        "TrainSettings": "settings",
        "convert_to_standard_lora": "fila",
        "fila_init": "fila",
        "forget": "run",
        "paired_plan": "plan",
        "progress_bar": "progress",
        "relative_fisher": "fila",
        "score_reference": "references",
        "stream_scores": "continual",
        "train": "run",
    },
)
