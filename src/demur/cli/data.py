"""`demur data`: look at data sets before anything is trained on them, and make what a method needs besides."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from demur.cli import options
from demur.cli.data_constructive import constructive

if TYPE_CHECKING:
    from demur.models import LanguageModel

__all__ = ["app"]

app = typer.Typer(help="Look at data sets, and make what a method needs besides.", no_args_is_help=True)


@app.callback()
def _data() -> None:
    """Look at data sets before anything is trained on them, and make what a method needs besides."""


@app.command("check")
def check(
    source: Annotated[
        str, typer.Argument(metavar="ROWS", help="File, folder, tofu:NAME or hub name; a slice like [0:40] may follow.")
    ],
    require: Annotated[list[str] | None, typer.Option(help="Column that every row must have; may be repeated.")] = None,
    split: Annotated[str | None, typer.Option(help="Split of a folder, a hub data set, or the column 'split'.")] = None,
) -> None:
    """Read a data set, check its rows, and print what was read; a bad row is named by file, line and column.

    Example: demur data check forget.jsonl --require question --require answer
    """
    import json

    from demur.data import read_rows, rows_hash

    dataset = read_rows(source, required=require or (), split=split)
    typer.echo(f"{source}: {len(dataset)} rows, sha256 {rows_hash(dataset)}")
    for column in dataset.column_names:
        filled = sum(value is not None for value in dataset[column][:])
        typer.echo(f"  {column}: {filled} of {len(dataset)} rows have a value")
    typer.echo("first row:")
    typer.echo(json.dumps(dataset[0], ensure_ascii=False, indent=2, default=str))


@app.command("alternates")
def alternates(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Model that makes them up: the one that is to forget.")],
    forget: Annotated[str, typer.Option(metavar="ROWS", help="Questions and answers.")],
    out: Annotated[Path, typer.Option(help="File to write: the rows with a column 'alternates'.")],
    n: Annotated[int, typer.Option(help="Answers to make for each row.")] = 5,
    seed: options.Seed = None,
    instruction: Annotated[
        str | None,
        typer.Option(
            show_default="ask for a plausible other answer",
            help="What the model is asked, with {question} and {answer} where the row's belong.",
        ),
    ] = None,
    temperature: Annotated[float, typer.Option(help="Of the sampling, above 0.")] = 1.0,
    max_new_tokens: Annotated[int, typer.Option(help="An answer's length at most.")] = 200,
    batch_size: Annotated[int, typer.Option(help="Prompts in one batch.")] = 32,
    template: options.Template = None,
    dtype: options.Dtype = None,
    device: options.Device = None,
    trust_remote_code: options.TrustRemoteCode = None,
) -> None:
    """Have a model make up other answers to the questions whose answers it is to forget, for the objective altpo.

    Example: demur data alternates MODEL --forget forget.jsonl --out alternates.jsonl
    """
    from demur.data import read_rows, write_rows
    from demur.errors import UsageError
    from demur.files import require_writable
    from demur.models import LocalEngine, alternate_answers, load_model
    from demur.models.alternates import INSTRUCTION
    from demur.training import progress_bar

    if out.exists():
        raise UsageError(f"{out} exists: choose another --out or remove it")
    require_writable(out)
    rows = read_rows(forget)
    lm = load_model(
        model,
        template=template or "auto",
        dtype=dtype or "auto",
        device=device or "auto",
        trust_remote_code=bool(trust_remote_code),
    )
    with progress_bar() as bar:
        task = bar.add_task("other answers", total=n * len(rows), note="")
        made = alternate_answers(
            LocalEngine(lm, batch_size),
            rows,
            n,
            instruction=instruction or INSTRUCTION,
            temperature=temperature,
            max_new_tokens=max_new_tokens,
            seed=seed or 0,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    write_rows(out, made)
    typer.echo(f"{out}: {len(made)} rows with {n} other answers each")


@app.command("build")
def build(
    method: Annotated[
        str | None, typer.Argument(metavar="METHOD", show_default=False, help="What the rows are to teach by.")
    ] = None,
    data: Annotated[str | None, typer.Option(metavar="ROWS", help="Plain rows.")] = None,
    out: Annotated[Path | None, typer.Option(help="File to write; a method of several stages writes a folder.")] = None,
    model: Annotated[
        str | None, typer.Option(help="The model that is to be taught, for methods that ask it first.")
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="An option of the method; may be repeated.")
    ] = None,
    seed: options.Seed = None,
    list_: Annotated[bool, typer.Option("--list", help="List the methods with their options, and stop.")] = False,
    template: options.Template = None,
    dtype: options.Dtype = None,
    device: options.Device = None,
    trust_remote_code: options.TrustRemoteCode = None,
) -> None:
    """Write the rows that a method of `demur refuse` trains on, to look at them or to train elsewhere.

    Example: demur data build derta --data lab:charter:train --out derta.jsonl
    """
    from demur.data import read_rows, write_rows
    from demur.errors import UsageError
    from demur.files import require_writable
    from demur.models import load_model
    from demur.training import progress_bar
    from demur.training.refusal import Lesson, plan_stages, refusal_methods

    if list_:
        for name in refusal_methods.names():
            component = refusal_methods.get(name)
            typer.echo(f"{name} (arXiv {component.facts['paper']}): {component.summary}")
            needs = [*component.facts["columns"], *(["a model"] if component.facts["model"] else [])]
            given = ", ".join(f"{key}={value}" for key, value in component.options.items()) or "none"
            typer.echo(f"    needs {', '.join(needs)}; options: {given}")
        typer.echo("Any objective on rows or on pairs is a method too: demur objectives")
        return
    if method is None or data is None or out is None:
        raise UsageError("pass METHOD, --data ROWS and --out FILE, or --list")
    if out.exists():
        raise UsageError(f"{out} exists: choose another --out or remove it")
    require_writable(out)

    def load() -> LanguageModel:
        if model is None:
            raise UsageError(f"method {method!r} asks the model that is to be taught: pass --model")
        return load_model(
            model,
            template=template or "auto",
            dtype=dtype or "auto",
            device=device or "auto",
            trust_remote_code=bool(trust_remote_code),
        )

    with progress_bar() as bar:
        task = bar.add_task("building rows", total=None, note="")
        lesson = Lesson(
            read_rows(data),
            data,
            seed or 0,
            load,
            lambda done, total, what: bar.update(task, description=what, completed=done, total=total),
        )
        stages = plan_stages(lesson, method, options.key_values(option or ()))
    for number, stage in enumerate(stages, 1):
        file = out if len(stages) == 1 else out / f"{number}-{stage.objective}.jsonl"
        write_rows(file, stage.rows)
        for note in stage.notes:
            typer.echo(f"note: {note}")
        typer.echo(f"{file}: {len(stage.rows)} rows for objective {stage.objective}")


@app.command("sample")
def sample(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Model whose right answers are collected.")],
    data: Annotated[str, typer.Option(metavar="ROWS", help="Questions with their known answers.")],
    out: Annotated[Path, typer.Option(help="File to write.")],
    strategy: Annotated[
        str, typer.Option(help="prop2diff (more right answers to harder questions) or uniform.")
    ] = "prop2diff",
    k: Annotated[int, typer.Option(help="Right answers to the hardest question, or to every one.")] = 8,
    budget: Annotated[int, typer.Option(show_default="k decides", help="Right answers in all.")] = 0,
    difficulty_samples: Annotated[int, typer.Option(help="Answers that a question's difficulty is told by.")] = 40,
    max_trials: Annotated[int, typer.Option(help="Answers to one question at most.")] = 2048,
    temperature: Annotated[float, typer.Option(help="Of the sampling, above 0.")] = 1.0,
    top_p: Annotated[float, typer.Option(help="Share of the probability that is sampled from.")] = 0.95,
    max_new_tokens: Annotated[int, typer.Option(help="An answer's length at most.")] = 200,
    batch_size: Annotated[int, typer.Option(help="Prompts in one batch.")] = 32,
    seed: options.Seed = None,
    template: options.Template = None,
    dtype: options.Dtype = None,
    device: options.Device = None,
    trust_remote_code: options.TrustRemoteCode = None,
) -> None:
    """Collect a model's right answers, more of them to harder questions; a killed run goes on where it stopped.

    Every draw is kept in OUT.draws until the rows are written.

    Example: demur data sample MODEL --data questions.jsonl --strategy prop2diff --k 8 --out rows.jsonl
    """
    given = dict(locals())
    from demur.data import read_rows, write_rows
    from demur.data.builders.journal import discard_journal
    from demur.errors import UsageError
    from demur.files import require_writable
    from demur.models import load_model
    from demur.training import progress_bar
    from demur.training.refusal.dart import SampleSettings, sample_answers

    if out.exists():
        raise UsageError(f"{out} exists: choose another --out or remove it")
    require_writable(out)
    settings = SampleSettings(**{name: given[name] for name in SampleSettings.__dataclass_fields__})
    rows = read_rows(data)
    lm = load_model(
        model,
        template=template or "auto",
        dtype=dtype or "auto",
        device=device or "auto",
        trust_remote_code=bool(trust_remote_code),
    )
    draws = out.with_name(f"{out.name}.draws")
    with progress_bar() as bar:
        task = bar.add_task("sampling", total=None, note="")
        collected, report, _ = sample_answers(
            lm,
            rows,
            settings,
            draws,
            seed=seed or 0,
            progress=lambda done, total, what: bar.update(task, description=what, completed=done, total=total),
        )
    write_rows(out, collected)
    discard_journal(draws)
    for note in report.sentences():
        typer.echo(f"note: {note}")
    typer.echo(f"{out}: {len(collected)} rows")


app.command("constructive")(constructive)


@app.command("muse-layout")
def muse_layout(
    forget: Annotated[str, typer.Argument(metavar="FORGET", help="Texts to forget: rows with a column text.")],
    retain: Annotated[str, typer.Option(help="Texts to keep.")],
    holdout: Annotated[str, typer.Option(help="Texts like the others that no model is ever trained on.")],
    out: Annotated[Path, typer.Option(help="Folder to write; it is replaced as a whole.")],
    forget_qa: Annotated[str | None, typer.Option(help="Questions with answers about the texts to forget.")] = None,
    retain_qa: Annotated[str | None, typer.Option(help="Questions with answers about the texts to keep.")] = None,
    shots: Annotated[int, typer.Option(min=1, help="Questions of each set that become in-context examples.")] = 5,
    share: Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of a text's words to prompt with.")] = 0.5,
) -> None:
    """Put texts of your own into the layout of the MUSE benchmark, so that `muse:FOLDER:…` reads them.

    Example: demur data muse-layout lab:almanac:forget-documents --retain lab:almanac:retain-documents
    --holdout lab:almanac:holdout-documents --forget-qa lab:almanac:forget --retain-qa lab:almanac:retain --out corpus
    """
    from demur.data import read_rows, write_muse

    texts = [read_rows(source, required=("text",)) for source in (forget, retain, holdout)]
    questions = {
        name: None if source is None else read_rows(source, required=("question", "answer"))
        for name, source in (("forget_qa", forget_qa), ("retain_qa", retain_qa))
    }
    folder = write_muse(out, *texts, **questions, shots=shots, share=share)
    typer.echo(f"{folder}: written; read it as muse:{folder}:raw:forget and so on")
