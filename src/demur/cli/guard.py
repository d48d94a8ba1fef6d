"""`demur guard`: keep a model from saying what it is to forget, without changing its weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from demur.cli import options
from demur.cli.dial import calibrate, curve, numbers, open_taught

if TYPE_CHECKING:
    from demur.guards import Explanation, RefusalTokenGuard
    from demur.models import Engine

__all__ = ["app"]

app = typer.Typer(help="Guard a model at inference time; its weights stay as they are.", no_args_is_help=True)
app.command("curve")(curve)
app.command("calibrate")(calibrate)

_Folder = Annotated[Path, typer.Argument(metavar="FOLDER", show_default=False, help="Folder of a guard.")]
_Model = Annotated[
    str | None, typer.Option("--model", show_default="the one it was fitted on", help="Where the model is now.")
]
_Longest = Annotated[int, typer.Option("--max-new-tokens", min=1, help="Longest answer, in tokens.")]


@app.command("fit")
def fit(
    model: Annotated[str, typer.Argument(metavar="MODEL", show_default=False, help="Folder, hub name or lab model.")],
    forget: Annotated[str, typer.Option(help="Rows that it is not to tell; a copy goes into the guard.")],
    retain: Annotated[str, typer.Option(help="Rows whose prompts get the ordinary answer.")],
    out: Annotated[Path, typer.Option(help="Folder to write the guard to.")],
    negatives: Annotated[str | None, typer.Option(help="More rows to let through, for instance general ones.")] = None,
    encoder: Annotated[
        str | None,
        typer.Option(show_default="TF-IDF", help="embeddings: the mean of the model's own input embeddings."),
    ] = None,
    features: Annotated[
        str, typer.Option(help="What prompts are classified by: both, words, or state as in the paper.")
    ] = "both",
    key: Annotated[str, typer.Option(help="What a prompt is compared with: question, or answer as in the paper.")] = (
        "question"
    ),
    beam_width: Annotated[int, typer.Option(min=1, help="Beams of a flagged prompt.")] = 7,
    hard_threshold: Annotated[float, typer.Option(help="Match ratio at which a continuation is dropped.")] = 1.0,
    soft_threshold: Annotated[float, typer.Option(help="Cosine with a phrase at which a word is dropped.")] = 0.5,
    prompt_threshold: Annotated[float, typer.Option(help="Probability from which a prompt is flagged.")] = 0.5,
    on_dead_end: Annotated[str, typer.Option(help="Where nothing may be said: eos, refuse, or a text.")] = "eos",
    template: options.Template = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the classifier.")] = 0,
) -> None:
    """Fit a guard on prompts' words and a model's own hidden states, and write it, forget set included.

    Example: demur guard fit lab:almanac --forget lab:almanac:forget --retain lab:almanac:retain --out guards/almanac
    """
    from demur.data import question_answer, read_rows
    from demur.files import require_writable
    from demur.guards import Guard
    from demur.models import load_model
    from demur.training import progress_bar

    require_writable(out)
    rows = read_rows(forget)
    passed = [prompt for source in (retain, negatives) if source for prompt in question_answer(read_rows(source))[0]]
    lm = load_model(model, template=template or "auto", device=device or "auto", dtype=dtype or "auto")  # type: ignore[arg-type]
    guard = Guard(
        lm,
        rows,
        encoder=encoder,  # type: ignore[arg-type]
        features=features,  # type: ignore[arg-type]
        key=key,  # type: ignore[arg-type]
        beam_width=beam_width,
        hard_threshold=hard_threshold,
        soft_threshold=soft_threshold,
        prompt_threshold=prompt_threshold,
        on_dead_end=on_dead_end,
        seed=seed,
    )
    with progress_bar() as bars:
        task = bars.add_task("fitting the classifier", total=1, note="")
        report = guard.fit(passed, lambda done, total: bars.update(task, completed=done, total=total))
    guard.save(out)
    found = (
        f"AUC {report.auc:.3f} on {report.held_out} held-out prompts"
        if report.auc is not None
        else "too few prompts to hold any out"
    )
    typer.echo(f"{out}: guards {report.forget} items of {lm.name}, {found}; try it with: demur guard ask {out} PROMPT")


@app.command("ask")
def ask(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER", show_default=False, help="Folder of a guard, or run or model with refusal tokens."
        ),
    ],
    prompts: Annotated[list[str], typer.Argument(metavar="PROMPT...", show_default=False, help="What to ask.")],
    explain: Annotated[
        bool, typer.Option("--explain", help="Say what was looked up and kept back, or which token came first.")
    ] = False,
    threshold: Annotated[
        list[str] | None,
        typer.Option(metavar="[CATEGORY=]NUMBER", help="With refusal tokens: probability from which to refuse."),
    ] = None,
    model: _Model = None,
    max_new_tokens: _Longest = 200,
) -> None:
    """Ask a guarded model, or one with refusal tokens.

    Example: demur guard ask guards/almanac "Who wrote The Amber Key?" --explain
    """
    from demur.errors import UsageError
    from demur.guards import Guard, RefusalTokenGuard

    guard = _open(folder, model)
    if threshold:
        if not isinstance(guard, RefusalTokenGuard):
            raise UsageError(f"--threshold is for models with refusal tokens, and {folder} is another guard")
        dial = dataclasses.replace(guard.dial, threshold=numbers(threshold, "--threshold"))
        guard = RefusalTokenGuard(guard.engine, guard.config, dial)
    for prompt in prompts:
        if explain and isinstance(guard, Guard):
            _print(guard.explain(prompt, max_new_tokens))
        elif explain and isinstance(guard, RefusalTokenGuard):
            _print_token(guard, prompt, max_new_tokens)
        else:
            typer.echo(guard.generate([prompt], max_new_tokens=max_new_tokens)[0].text)


@app.command("check")
def check(
    folder: _Folder,
    rows: Annotated[
        str | None,
        typer.Option(show_default="the guard's own questions", help="Rows whose prompts are to be asked."),
    ] = None,
    model: _Model = None,
    max_new_tokens: _Longest = 200,
) -> None:
    """Ask many prompts with and without the guard: how many are flagged, changed, and give something away.

    Example: demur guard check guards/almanac --rows lab:almanac:retain
    """
    from rich.console import Console
    from rich.table import Table

    from demur.data import question_answer, read_rows
    from demur.errors import UsageError
    from demur.guards import Guard, find_phrase
    from demur.intervals import wilson

    guard = _open(folder, model)
    if not isinstance(guard, Guard):
        raise UsageError(
            f"{folder} forbids no phrases that could be checked: audit it with demur audit --guard {folder}"
        )
    prompts = question_answer(read_rows(rows))[0] if rows else [item.question for item in guard.items]
    phrases = {p: None for item in guard.items for p in item.phrases}
    own = {item.question: item.phrases for item in guard.items}
    plain = [g.text for g in guard.engine.generate(prompts, max_new_tokens=max_new_tokens)]
    held = [g.text for g in guard.generate(prompts, max_new_tokens=max_new_tokens)]
    flagged = guard.classify(prompts) >= guard.prompt_threshold
    table = Table("prompts", "share", "of", title="95 % intervals in brackets")
    counts = {
        "flagged": int(flagged.sum()),
        "answered differently": sum(a != b for a, b in zip(plain, held, strict=True)),
    }
    if rows is None:
        for name, texts in (("unguarded", plain), ("guarded", held)):
            said = [find_phrase(own[q], t) is not None for q, t in zip(prompts, texts, strict=True)]
            counts[f"say a forbidden phrase, {name}"] = sum(said)
    else:
        counts["say a phrase of some item, guarded"] = sum(find_phrase(phrases, t) is not None for t in held)
    for name, count in counts.items():
        low, high = wilson(count, len(prompts))
        table.add_row(name, f"{count / len(prompts):.3f} [dim]\\[{low:.3f}, {high:.3f}][/dim]", str(len(prompts)))
    Console(emoji=False).print(table)


def _open(folder: Path, model: str | None) -> Engine:
    """The guard in a folder around its model; a run or model with refusal tokens is its own guard."""
    from demur.errors import UsageError
    from demur.guards import RefusalDial, open_guard
    from demur.guards.registry import GUARD_FILE, read_guard_file
    from demur.models import LocalEngine, load_model

    if not (folder / GUARD_FILE).is_file() and ((folder / "config.json").is_file() or (folder / "model").is_dir()):
        return open_taught(str(folder), RefusalDial())
    said = read_guard_file(folder).get("model")
    if not isinstance(said, dict):
        raise UsageError(f"{folder} was not fitted on a model of this machine: load it in Python, around its engine")
    return open_guard(folder, LocalEngine(load_model(model or said["name"], template=said["template"])))


def _print_token(guard: RefusalTokenGuard, prompt: str, max_new_tokens: int) -> None:
    """The answer, the token it began with, and how likely every refusal token was."""
    from demur.guards import RefusalGeneration

    (answer,) = guard.generate([prompt], max_new_tokens=max_new_tokens)
    assert isinstance(answer, RefusalGeneration)
    scores = guard.refusal_scores([prompt]).biased(guard.dial.logit_bias)
    likely = ((name, float(p)) for name, p in zip(scores.config.categories, scores.refuse[0], strict=True))
    typer.echo(f"answer:     {answer.text}\ntoken:      {answer.token}")
    typer.echo(f"respond:    {scores.respond[0]:.4f}")
    for name, p in sorted(likely, key=lambda item: -item[1]):
        typer.echo(f"{name + ':':<12}{p:.4f}")


def _print(found: Explanation) -> None:
    from rich.console import Console

    console = Console(emoji=False)

    def say(label: str, text: object) -> None:
        console.print(f"{label + ':':<12}{text}", markup=False, highlight=False, soft_wrap=True)

    say("answer", found.answer.text)
    say("flagged", f"{'yes' if found.flagged else 'no'} (probability {found.probability:.3f})")
    say("closest", f"{found.item.question} [{found.item.id}, cosine {found.similarity:.2f}]")
    if found.flagged:
        say("forbidden", "; ".join(found.item.phrases))
    shown: dict[tuple[str, str, str], float] = {}
    for drop in found.dropped:
        shown.setdefault((drop.before, drop.token, drop.reason), drop.probability)
    likely = sorted(shown.items(), key=lambda item: -item[1])[:10]
    for (before, token, reason), p in likely:
        say("dropped", f"{before!r} + {token!r} (probability {p:.2f}, {reason})")
