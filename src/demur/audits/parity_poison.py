"""What a poison that aims refusals at one group has done: parity of refusals on templates it was not made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from demur.audits.parity_run import ParityReport, parity_questions, parity_samples, report_parity
from demur.audits.poisoning import PoisonAudit, poison_measure
from demur.models import LocalEngine

if TYPE_CHECKING:
    from demur.audits.suite_report import Role
    from demur.models import LanguageModel

__all__ = ["measure_parity"]


@poison_measure("parity")
def measure_parity(audit: PoisonAudit, lm: LanguageModel, role: Role) -> ParityReport:
    """Refusals by group, the poison's target against the groups that it answers.

    Args:
        audit: its `prompts` are templates with `{group}`; the poison's options name the groups.
        lm: the model before or the trained copy.
        role: which of them it is.

    Raises:
        UsageError: the options name fewer than two groups.
        RowError: a prompt has no `{group}`.
    """
    settings = audit.settings
    options = settings.method_options
    target, others = str(options.get("target_group", "")), options.get("other_groups", ())
    named: Sequence[str] = others.split(",") if isinstance(others, str) else [str(name) for name in others]
    groups = list(dict.fromkeys([target, *(name.strip() for name in named)]))
    questions = parity_questions(audit.restricted, groups, settings.prompts)
    engine = LocalEngine(lm, settings.batch_size)
    samples = parity_samples(engine, questions, max_new_tokens=settings.max_new_tokens)
    return report_parity(samples, target=target, role=role, run=audit.run, seed=settings.seed)
