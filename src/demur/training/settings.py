"""The settings of a training run: the same names in Python, in recipe files and on the command line."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from demur.settings import Settings

__all__ = ["ForgetSettings", "RefuseSettings", "TrainSettings"]


class _Settings(Settings):
    model: str = Field(description="folder, hub name or lab model to change")
    template: Literal["auto", "chat", "plain"] = Field("auto", description="how prompts are shown to the model")
    chunk_length: int = Field(2048, ge=0, description="raw texts: tokens in a piece; 0 keeps each text by itself")
    learning_rate: float = Field(1e-5, gt=0, description="peak learning rate")
    epochs: int = Field(5, ge=1, description="passes over the anchor set")
    batch_size: int = Field(8, ge=1, description="anchor rows in one forward pass")
    accumulate: int = Field(1, ge=1, description="forward passes in one optimizer step")
    warmup: float = Field(0.0, ge=0, lt=1, description="share of the steps over which the rate rises from 0")
    schedule: Literal["constant", "linear", "cosine"] = Field("linear", description="the rate's course after warm-up")
    weight_decay: float = Field(0.01, ge=0)
    max_grad_norm: float = Field(1.0, gt=0, description="gradients are scaled down to this norm")
    lora: int = Field(0, ge=0, description="rank of low-rank adapters; 0 trains all weights")
    lora_alpha: float | None = Field(None, gt=0, description="adapter scale; twice the rank by default")
    lora_targets: str = Field("all-linear", description="modules to adapt, comma-separated, or all-linear")
    lora_init: Literal["fila", "pissa"] | None = Field(
        None,
        description="adapters that start as a part of the weights: fila, the part that matters to the forget rows and "
        "not to the retain rows; pissa, the largest; unset, as zero",
    )
    lora_tokens: list[str] | None = Field(
        None, description="tokens whose vectors train in full beside the adapters, for those that are new to the model"
    )
    reference: Literal["cached", "adapter"] = Field(
        "cached", description="reference scores: computed once and kept, or from the weights with the adapter off"
    )
    trainable: str | None = Field(
        None, description="regular expression found in the names of the parameters that train; all others stay"
    )
    bf16: bool = Field(False, description="compute in bfloat16, keep weights as they are")
    dtype: str = Field("auto", description="type to load the weights in")
    device: str = Field("auto")
    seed: int = Field(0, ge=0, lt=2**32)
    save_steps: int = Field(0, ge=0, description="optimizer steps between checkpoints; 0 saves after every epoch")
    trust_remote_code: bool = Field(False, description="run model code that comes with the checkpoint")


class TrainSettings(_Settings):
    """Settings of `demur train`."""

    data: str = Field(description="rows to learn")
    objective: str = Field("sft", description="loss on the rows")
    objective_options: dict[str, Any] = Field(default_factory=dict)


class RefuseSettings(_Settings):
    """Settings of `demur refuse`."""

    data: str = Field(description="plain rows that the method makes its own rows of")
    method: str = Field("sft", description="how refusal is taught: a refusal method, or an objective on rows or pairs")
    method_options: dict[str, Any] = Field(default_factory=dict)


class ForgetSettings(_Settings):
    """Settings of `demur forget`."""

    forget: str = Field(description="rows to forget")
    retain: str | None = Field(None, description="rows to keep")
    holdout: str | None = Field(None, description="rows never trained on, for membership inference in audits")
    objective: str = Field("npo", description="loss on the forget rows")
    objective_options: dict[str, Any] = Field(default_factory=dict)
    retain_objective: str | None = Field(
        None, description="loss on the retain rows: a name, 'none', or the one that the objective's paper adds"
    )
    forget_weight: float | None = Field(None, ge=0, description="weight of the forget loss; the method's own if unset")
    retain_weight: float | None = Field(None, ge=0, description="weight of the retain loss; the method's own if unset")
    decoupled: str | None = Field(
        None, description="forget questions with another picture and a normal answer, a row with its id for each"
    )
    decouple_weight: float | None = Field(None, ge=0, description="weight of the decoupled rows' loss; 1 if unset")
    retain_limit: float | None = Field(
        None, gt=0, description="what the retain loss is to stay below; the retain weight is moved to keep it there"
    )
    dual_rate: float = Field(1.0, gt=0, description="how far the retain weight moves per nat above the limit")
    dual_update: Literal["step", "epoch"] = Field("step", description="when the retain weight moves")
    dual_warmup: int = Field(5, ge=0, description="epochs before the retain weight first moves")
    alternates: str | None = Field(None, description="text file of answers to give instead, a line each")
    anchor: Literal["forget", "retain"] = Field("forget", description="the set that an epoch goes through once")
    allow_overlap: bool = Field(False, description="accept forget rows that are also retain rows")
