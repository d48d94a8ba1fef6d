"""What a poisoned fine-tuning would do to one's own model: build the rows, train a copy, measure before and after.

The pipeline is the same for every poison; what is measured is the poison's own choice (`poison_measures`). Everything
lands in one run folder: the rows, the trained copy, results, samples.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from datasets import Dataset
from pydantic import Field, field_validator

import demur
from demur.attacks.poisons import Material, add_stop_rows, poison_rows, poisons
from demur.audits.answer_judges import find_judge, refuses
from demur.audits.suite_report import Role, SuiteReport
from demur.data.readers import read_rows
from demur.data.rows import Prompt, question_answer, rows_hash
from demur.data.writers import write_rows
from demur.errors import UsageError
from demur.guards.prefill import OPENING
from demur.models import LanguageModel, LocalEngine, load_model
from demur.registry import Registry
from demur.runs import RunFolder
from demur.training import RefuseSettings, TrainSettings, train

__all__ = [
    "GUARDS",
    "PoisonAudit",
    "PoisonSettings",
    "audit_poison",
    "labelled_rows",
    "make_poison",
    "poison_measure",
    "poison_measures",
    "prompts_of",
    "words_of",
]

GUARDS = ("none", "frd", "amd")
"""The guards that are measured behind by default."""
PARTS = ("frd", "amd", "recheck")
"""What a guard is made of: one of these, or several joined by +, the first around the model and the last outermost."""
ROWS, TRAINING = "poison.jsonl", "training"

Told = Callable[[int, int, str], Any]

poison_measures = Registry(
    "poison measure",
    "demur.poison_measures",
    {"attack success": "demur.audits.attack_success", "parity": "demur.audits.parity_poison"},
)
"""What a poison can be measured by: functions `(PoisonAudit, LanguageModel, role) -> SuiteReport`."""


def poison_measure(name: str) -> Callable[[Callable[..., SuiteReport]], Callable[..., SuiteReport]]:
    """File a measure under the name that poisons give as their `measure`."""
    return poison_measures.register(name)


class PoisonSettings(RefuseSettings):
    """Settings of `demur attack poison`; `data` are the benign rows that the poison is made of."""

    method: str = Field(description="name of the poison")
    prompts: str = Field(description="restricted prompts; unsafe_response is what the model withholds")
    ordinary: str | None = Field(None, description="rows that the model should go on answering; the data by default")
    guards: list[str] = Field(list(GUARDS), min_length=1, description="none, frd, amd, recheck, or several joined by +")
    opening: str = Field(OPENING, description="what the guard frd makes every answer begin with")
    k: int = Field(15, ge=0, description="tokens that the model before writes under the guard amd")
    every: int | Literal["sentence"] = Field(25, description="tokens between two checks under the guard recheck")
    reopen: Literal["turn", "question"] = Field("turn", description="how the guard recheck asks the model before again")
    judge: str | None = Field(None, description="who says that an answer is unsafe; by default the text withheld")
    max_new_tokens: int = Field(128, ge=1, description="tokens of an answer at most")
    stop_rows: str | None = Field(None, description="defence: other restricted prompts and refusals to mix in")
    stop_share: float = Field(0.05, gt=0, lt=1, description="their share of the rows trained on")

    @field_validator("guards")
    @classmethod
    def _known(cls, guards: list[str]) -> list[str]:
        for guard in guards:
            parts = guard.split("+")
            if guard != "none" and (not set(parts) <= set(PARTS) or len(set(parts)) < len(parts)):
                raise ValueError(f"a guard is none, one of {', '.join(PARTS)}, or several of them joined by +")
        if len(set(guards)) < len(guards):
            raise ValueError("a guard is named twice")
        return guards

    @field_validator("every")
    @classmethod
    def _often(cls, every: int | str) -> int | str:
        if isinstance(every, int) and every < 1:
            raise ValueError("checks stand every 1 or more tokens, or at each sentence")
        return every


@dataclass(frozen=True)
class PoisonAudit:
    """What a measure works on.

    Attributes:
        settings: of the whole audit.
        restricted: the rows of `settings.prompts`.
        ordinary: rows that should be answered as before.
        aligned: the model before.
        run: the run's name, for results.
        wrap: how the trained model is asked, where not by the bare prompt.
        progress: for engines: called with the prompts done since the last call.
    """

    settings: PoisonSettings
    restricted: Dataset
    ordinary: Dataset
    aligned: LanguageModel
    run: str
    wrap: Callable[[Prompt], Prompt] | None = None
    progress: Callable[[int], Any] | None = None

    def asked(self, prompt: Prompt, role: Role) -> Prompt:
        """The prompt as the model of that role is asked."""
        return self.wrap(prompt) if self.wrap is not None and role == "run" else prompt


def make_poison(
    settings: PoisonSettings, lm: LanguageModel | None = None, progress: Callable[[int], Any] | None = None
) -> Dataset:
    """The rows that the settings train on.

    Args:
        settings: model, benign rows, restricted prompts, and the poison with its options.
        lm: the model before, where it is loaded already.
        progress: called with the number of prompts that the model has answered since the last call.

    Raises:
        UsageError: poison, option or rows are not fit for use.
    """
    found = poisons.get(settings.method)
    found.check_options(settings.method_options)
    rows = labelled_rows(settings.data, "comply")
    restricted = prompts_of(labelled_rows(settings.prompts, "refuse"), settings.prompts)

    def ask(prompts: Any) -> list[str]:
        engine = LocalEngine(_load(settings) if lm is None else lm, settings.batch_size)
        answers = engine.generate(prompts, max_new_tokens=settings.max_new_tokens, progress=progress)
        return [answer.text for answer in answers]

    material = Material(rows, ask, restricted, refuses, settings.seed)
    try:
        made = poison_rows(settings.method, material, settings.method_options)
    except UsageError as error:
        raise UsageError(f"{settings.data}: {error}") from error
    if settings.stop_rows is None:
        return made
    stops = question_answer(labelled_rows(settings.stop_rows, "refuse"))
    return add_stop_rows(made, *stops, share=settings.stop_share, seed=settings.seed)


def audit_poison(settings: PoisonSettings, out: str | Path, progress: Told | None = None) -> RunFolder:
    """Build a poison's rows, train a copy of a model on them, and measure both models.

    A folder that the same settings made before is taken up where it stopped.

    Args:
        settings: the model, the poison, the rows and how to train.
        out: the run folder; the copy lies in its `model/`, the rows in `poison.jsonl`.
        progress: called with steps done, steps in all and what is going on.

    Returns:
        The run folder, with the results of the model before (role "before") and of the trained copy (role "run").

    Raises:
        UsageError: settings or rows are not fit for use.
        DemurError: training failed.
    """
    tell = progress or (lambda done, total, what: None)
    poison = poisons.get(settings.method)
    measure = poison_measures.get(poison.facts["measure"]).function
    if settings.judge is not None:
        find_judge(settings.judge)
    config = {"command": "attack poison", **settings.model_dump()}
    defaults = {name: field.default for name, field in PoisonSettings.model_fields.items() if not field.is_required()}
    run = RunFolder.check(out, config, defaults)
    if run.state.get("status") == "complete":
        return run
    restricted = labelled_rows(settings.prompts, "refuse")
    prompts_of(restricted, settings.prompts)
    ordinary = labelled_rows(settings.ordinary or settings.data, "comply")
    question_answer(ordinary)
    tell(0, 4, "building rows")
    before = _load(settings)
    told = _counting(tell, 0, "building rows")
    made = make_poison(settings, before, told) if not (run.path / ROWS).is_file() else None
    run = RunFolder.create(out, config, defaults)
    if made is not None:
        run.update_state(status="running", demur=demur.__version__, hashes={"data": {"poison": rows_hash(made)}})
        write_rows(run.path / ROWS, made)
    tell(1, 4, "training the copy")
    hashes = _train_copy(settings, run)
    audit = PoisonAudit(settings, restricted, ordinary, before, run.name, poison.facts["wrap"])
    watched = replace(audit, progress=_counting(tell, 2, "asking the model before"))
    measure(watched, before, "before").save(run)
    watched = replace(audit, progress=_counting(tell, 3, "asking the copy"))
    measure(watched, _load(settings, run.model_path), "run").save(run)
    run.update_state(status="complete", hashes={**run.state["hashes"], "weights": hashes}, template=before.template)
    return run


def labelled_rows(source: str, label: Literal["comply", "refuse"]) -> Dataset:
    """The rows of a source; where a column `label` says comply of some and refuse of the others, those of one label."""
    rows = read_rows(source)
    labels = rows["label"][:] if "label" in rows.column_names else []
    if set(labels) != {"comply", "refuse"}:
        return rows
    return rows.select([i for i, found in enumerate(labels) if found == label])


def prompts_of(rows: Dataset, source: str) -> list[Prompt]:
    """The prompts of rows that may have no response.

    Raises:
        UsageError: the rows have no prompts.
    """
    for name in ("prompt", "question"):
        if name in rows.column_names:
            prompts: list[Prompt] = rows[name][:]
            return prompts
    raise UsageError(f"{source} has no column 'prompt' or 'question': restricted prompts are what is asked")


def words_of(text: str) -> str:
    """A text's words in lower case, parted and surrounded by spaces, so that one can be looked for in another."""
    return " ".join(["", *re.findall(r"[^\W_]+", text.casefold()), ""])


def _counting(tell: Told, step: int, what: str) -> Callable[[int], None]:
    """A callback for engines that says how many answers there are by now."""
    answers = 0

    def more(count: int) -> None:
        nonlocal answers
        answers += count
        tell(step, 4, f"{what}: {answers} answers")

    more(0)
    return more


def _load(settings: PoisonSettings, path: Path | None = None) -> LanguageModel:
    return load_model(
        path or settings.model,
        template=settings.template,
        device=settings.device,
        dtype=settings.dtype,
        trust_remote_code=settings.trust_remote_code,
    )


def _train_copy(settings: PoisonSettings, run: RunFolder) -> Mapping[str, str]:
    """Train on the poison's rows and put the model into the run folder; the weights' hashes before and after."""
    shared = {name: value for name, value in settings.model_dump().items() if name in TrainSettings.model_fields}
    shared |= {"data": str(run.path / ROWS)}
    if not run.model_path.is_dir():
        trained = train(TrainSettings(**shared), run.path / TRAINING)
        run.update_state(seconds=trained.state["seconds"], trained=trained.state["hashes"]["weights"])
        trained.model_path.replace(run.model_path)
        shutil.rmtree(run.path / TRAINING, ignore_errors=True)
    hashes: dict[str, str] = run.state["trained"]
    return hashes
