"""`demur data constructive`: responses improved by feedback on the plans behind them, for the method oyster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from demur.cli import options

__all__ = ["constructive"]


def constructive(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="Model that plans, edits and responds: as for --model, or NAME@http://…"),
    ],
    data: Annotated[str, typer.Option(metavar="ROWS", help="Requests: a column prompt, and perhaps category.")],
    out: Annotated[Path, typer.Option(help="File to write: pairs with their whole history.")],
    judge: Annotated[
        str | None, typer.Option(show_default="MODEL", help="Model that judges, named in the same way.")
    ] = None,
    rounds: Annotated[
        str, typer.Option(help="Whose verdict counts in each round: both, user or developer.")
    ] = "both,both,both",
    max_change: Annotated[int, typer.Option(help="Strategies that may change in a round.")] = 2,
    early_stop: Annotated[bool, typer.Option("--early-stop", help="End once nothing is left to improve.")] = False,
    tolerance: Annotated[float, typer.Option(min=0.0, max=1.0, help="Highest risk of a chosen response.")] = 0.0,
    temperature: Annotated[float, typer.Option(min=0.0, help="Of plans, edits and responses.")] = 0.7,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="A reply's length at most.")] = 1000,
    batch_size: Annotated[int, typer.Option(min=1, help="Requests under way at once.")] = 16,
    seed: options.Seed = None,
    template: options.Template = None,
    dtype: options.Dtype = None,
    device: options.Device = None,
    trust_remote_code: options.TrustRemoteCode = None,
) -> None:
    """Improve a model's responses by feedback on the plans behind them, for demur refuse --method oyster.

    Every finished request is kept in OUT.trajectories until the pairs are written: a killed run goes on from there.

    Example: demur data constructive Qwen/Qwen3-8B@http://localhost:8000/v1 --data requests.jsonl --out pairs.jsonl
    """
    from demur.audits import ModelSafetyRubric, ModelSatisfactionRubric
    from demur.data import LingoBP, TextEditor, read_rows, rows_hash, write_rows
    from demur.data.builders.journal import discard_journal
    from demur.data.builders.lingo_bp import UnreadableReply
    from demur.data.builders.trajectories import Request, optimize_requests, read_requests
    from demur.errors import UsageError
    from demur.files import require_writable
    from demur.models import Gathering, open_engine
    from demur.training import progress_bar

    if out.exists():
        raise UsageError(f"{out} exists: choose another --out or remove it")
    require_writable(out)
    rows = read_rows(data)
    requests = read_requests(rows)
    sides = tuple(side.strip() for side in rounds.split(","))
    load = {"template": template, "dtype": dtype, "device": device, "trust_remote_code": trust_remote_code}
    given: dict[str, Any] = {name: value for name, value in load.items() if value is not None}
    editing, known = open_engine(model, batch_size, **given)
    judging, judged = (editing, known) if judge in (None, model) else open_engine(str(judge), batch_size, **given)
    gathering = Gathering()
    editor_engine, judge_engine = gathering.around(editing), gathering.around(judging)

    def ask(prompt: str, attempt: int) -> str:
        (reply,) = editor_engine.generate(
            [prompt], max_new_tokens=max_new_tokens, temperature=temperature, seed=(seed or 0) * 1000 + attempt
        )
        if reply.finish == "error":
            raise UnreadableReply(f"the editor gave no answer: {reply.error}")
        return reply.text

    editor, satisfaction = TextEditor(ask), ModelSatisfactionRubric(judge_engine)

    def method(request: Request) -> LingoBP:
        safety = ModelSafetyRubric(judge_engine, request.category)
        return LingoBP(editor, satisfaction, safety, sides, max_change, early_stop)  # type: ignore[arg-type]

    method(requests[0])  # whether the options can be used, before any model is asked
    journal = out.with_name(f"{out.name}.trajectories")
    facts = {"editor": known, "judge": judged, "rows": rows_hash(rows), "rounds": sides, "max change": max_change}
    facts |= {"early stop": early_stop, "temperature": temperature, "length": max_new_tokens, "seed": seed or 0}
    with progress_bar() as bar:
        task = bar.add_task("improving responses", total=len(requests), note="")
        ended = optimize_requests(
            requests,
            editor.plan,
            method,
            journal,
            facts,
            tolerance=tolerance,
            run=lambda work, todo: gathering.map(work, todo, batch_size),
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if not ended.found:
        discard_journal(journal)  # it would only repeat that nothing could be read
    for note in ended.sentences():
        typer.echo(f"note: {note}")
    pairs = ended.pairs()
    write_rows(out, pairs)
    discard_journal(journal)
    typer.echo(f"{out}: {len(pairs)} pairs; train on them with: demur refuse MODEL --data {out} --method oyster")
