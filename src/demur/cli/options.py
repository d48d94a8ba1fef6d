"""Options that several verbs share, and how settings are read from them."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args

import typer

from demur.errors import UsageError

if TYPE_CHECKING:
    from demur.training import ForgetSettings, RefuseSettings, TrainSettings

    Settings = TypeVar("Settings", ForgetSettings, RefuseSettings, TrainSettings)

__all__ = [
    "TRAINING",
    "Device",
    "Dtype",
    "Model",
    "ObjectiveOption",
    "Recipe",
    "RunOut",
    "Seed",
    "Template",
    "TrustRemoteCode",
    "in_panels",
    "key_values",
    "parse_seeds",
    "settings_from",
    "with_training",
]

# An option that is not given is None, so that a recipe's value stays; what is shown is the setting's own default.
Model = Annotated[
    str | None, typer.Argument(metavar="MODEL", show_default=False, help="Folder, hub name or lab model to change.")
]
RunOut = Annotated[Path, typer.Option("--out", help="Run folder to write.")]
ObjectiveOption = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=VALUE", help="An option of the objective; may be repeated."),
]
Lora = Annotated[int | None, typer.Option(metavar="RANK", help="Train low-rank adapters instead of all weights.")]
LoraTargets = Annotated[
    str | None, typer.Option(show_default="all-linear", help="Modules to adapt, separated by commas.")
]
LoraAlpha = Annotated[float | None, typer.Option(show_default="the rank times two", help="Scale of the adapters.")]
LoraInit = Annotated[
    str | None,
    typer.Option(help="Start adapters as a part of the weights: fila (what the forget rows alone need) or pissa."),
]
LoraTokens = Annotated[
    list[str] | None,
    typer.Option(metavar="TOKEN", help="A new token whose vectors train in full beside adapters; may be repeated."),
]
Reference = Annotated[
    str | None, typer.Option(show_default="cached", help="Reference scores: cached, or adapter (switched off).")
]
Trainable = Annotated[
    str | None,
    typer.Option(
        metavar="REGEX",
        show_default="the whole model",
        help="Train only parameters in whose names this is found, such as 'layers.[5-7].mlp.down_proj'.",
    ),
]
LearningRate = Annotated[float | None, typer.Option(show_default="1e-5", help="Peak learning rate.")]
Epochs = Annotated[int | None, typer.Option(show_default="5", help="Passes over the rows.")]
BatchSize = Annotated[int | None, typer.Option(show_default="8", help="Rows in one forward pass.")]
Accumulate = Annotated[int | None, typer.Option(show_default="1", help="Forward passes in one optimizer step.")]
Warmup = Annotated[float | None, typer.Option(show_default="0", help="Share of the steps over which the rate rises.")]
Schedule = Annotated[
    str | None, typer.Option(show_default="linear", help="The rate's course: constant, linear or cosine.")
]
WeightDecay = Annotated[float | None, typer.Option(show_default="0.01", help="AdamW's weight decay.")]
Bf16 = Annotated[bool | None, typer.Option(show_default=False, help="Compute in bfloat16.")]
Device = Annotated[str | None, typer.Option(show_default="auto", help="auto, cpu or cuda.")]
Dtype = Annotated[str | None, typer.Option(show_default="auto", help="Type to load weights in, for instance bfloat16.")]
Seed = Annotated[int | None, typer.Option(show_default="0", help="Decides order, partners and initial adapters.")]
SaveSteps = Annotated[
    int | None, typer.Option(show_default="0", help="Optimizer steps between checkpoints; 0 saves after every epoch.")
]
Template = Annotated[str | None, typer.Option(show_default="auto", help="How prompts are shown: auto, chat or plain.")]
ChunkLength = Annotated[
    int | None,
    typer.Option(show_default="2048", help="Raw texts are joined and cut into pieces of so many tokens; 0 keeps each."),
]
Recipe = Annotated[Path | None, typer.Option(help="YAML file of settings, for instance a run's config.yaml.")]
TrustRemoteCode = Annotated[bool | None, typer.Option(show_default=False, help="Run code that comes with the model.")]


_TRAINING = {
    "lora": Lora,
    "lora_alpha": LoraAlpha,
    "lora_targets": LoraTargets,
    "lora_init": LoraInit,
    "lora_tokens": LoraTokens,
    "reference": Reference,
    "trainable": Trainable,
    "learning_rate": LearningRate,
    "epochs": Epochs,
    "batch_size": BatchSize,
    "accumulate": Accumulate,
    "warmup": Warmup,
    "schedule": Schedule,
    "weight_decay": WeightDecay,
    "bf16": Bf16,
    "dtype": Dtype,
    "device": Device,
    "seed": Seed,
    "save_steps": SaveSteps,
    "template": Template,
    "chunk_length": ChunkLength,
    "recipe": Recipe,
    "trust_remote_code": TrustRemoteCode,
}


def with_options(added: Iterable[inspect.Parameter]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a verb options after its own; it takes them as keyword arguments.

    Args:
        added: the options, with their annotations.
    """

    def give(verb: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(verb, eval_str=True)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]

        @functools.wraps(verb)
        def wrapped(*args: Any, **given: Any) -> None:
            verb(*args, **given)

        parameters = [*own, *(p.replace(kind=p.KEYWORD_ONLY) for p in added)]
        wrapped.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        wrapped.__annotations__ = {p.name: p.annotation for p in parameters}
        return wrapped

    return give


with_training = with_options(
    [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        for name, annotation in _TRAINING.items()
    ]
)
"""Give a verb the options of every training run."""

TRAINING = tuple(name for name in _TRAINING if name not in ("seed", "recipe"))
"""Names of the options that decide how a language model is trained."""


def in_panels(panels: Mapping[str, Sequence[str]]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Show some of a verb's options under headings of their own in its help.

    Args:
        panels: heading → names of the verb's parameters.
    """
    heading = {name: panel for panel, names in panels.items() for name in names}

    def placed(parameter: inspect.Parameter) -> inspect.Parameter:
        if parameter.name not in heading:
            return parameter
        kind, info = get_args(parameter.annotation)
        info = copy.copy(info)
        info.rich_help_panel = heading[parameter.name]
        return parameter.replace(annotation=Annotated[kind, info])

    def place(verb: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(verb, eval_str=True)
        parameters = [placed(parameter) for parameter in signature.parameters.values()]
        verb.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        verb.__annotations__ = {p.name: p.annotation for p in parameters}
        return verb

    return place


def settings_from(kind: type[Settings], given: Mapping[str, Any]) -> Settings:
    """Settings from a verb's arguments: those that are settings, over those of the recipe.

    Args:
        kind: what to make.
        given: the verb's arguments by name, with `recipe` and `option` among them; `training` holds those that
            `with_training` adds.

    Raises:
        UsageError: the recipe cannot be read, or a setting is unknown, missing or out of range.
    """
    given = {**given, **given["training"]}
    settings = {name: given[name] for name in kind.model_fields if name in given and given[name] != []}
    named = next(name for name in ("objective_options", "method_options") if name in kind.model_fields)
    return kind.make(given["recipe"], **{named: key_values(given["option"] or ()) or None}, **settings)


def key_values(pairs: Sequence[str], option: str = "--option") -> dict[str, Any]:
    """NAME=VALUE pairs, the values read as YAML.

    Args:
        pairs: what was written on the command line.
        option: the option's name, for messages.

    Raises:
        UsageError: a pair has no equals sign, or its value is no YAML.
    """
    import yaml

    out = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise UsageError(f"{option} {pair!r} is not NAME=VALUE")
        try:
            out[name.strip()] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise UsageError(f"{option} {pair!r}: the value is neither a number nor a word") from None
    return out


def parse_seeds(text: str | None) -> list[int] | None:
    """Seeds written as 1,2,3 or 1-5; None for None.

    Raises:
        UsageError: they are written otherwise.
    """
    if text is None:
        return None
    seeds: list[int] = []
    for piece in text.split(","):
        first, dash, last = piece.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise UsageError(f"--seeds {text}: write whole numbers, for instance 1,2,3 or 1-5")
        seeds += range(int(first), int(last or first) + 1)
    if not seeds:
        raise UsageError(f"--seeds {text}: the range is empty")
    return seeds
