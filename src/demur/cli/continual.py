"""`demur continual`: learn tasks one after another without keeping old rows."""

from __future__ import annotations

from typing import Annotated

import typer

from demur.cli import options

__all__ = ["continual"]


def continual(
    out: options.RunOut,
    data: Annotated[str, typer.Option(help="Pictures to learn: digits:train, a folder of pictures, .npz, hub name.")],
    test: Annotated[str, typer.Option(help="Pictures to measure with.")],
    tasks: Annotated[str, typer.Option(help="Classes of each task, for instance 0,1/2,3/4,5.")],
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            show_default="a small encoder from scratch",
            help="Classifier whose features go on learning: folder, hub name, lab model or package.module:function.",
        ),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="An option of the learner, such as epochs=20, distill_coef=0 (no distillation) or teacher_mode=eval; "
            "may be repeated.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Decides weights, order and views.")] = 0,
) -> None:
    """Learn tasks with classes of their own one after another, and measure all of them after each.

    Example: demur continual --data digits:train --test digits:test --tasks 0,1/2,3/4,5/6,7/8,9 --out runs/prd
    """
    from demur.training import progress_bar
    from demur.training.continual_run import continual_run

    with progress_bar() as bar:
        bars = {}

        def watch(what: str, done: int, total: int) -> None:
            if what not in bars:
                bars[what] = bar.add_task(what, total=total, note="")
            bar.update(bars[what], completed=done)

        chosen = options.key_values(option or ())
        run = continual_run(data, test, tasks, out, model=model, options=chosen, seed=seed, progress=watch)
    results = run.results()
    found = dict(zip(results["metric"], results["value"].astype(float), strict=True))
    count = len(tasks.split("/"))
    for after in range(count):
        shown = "  ".join(f"{found[f'accuracy:task {task} after {after}']:.3f}" for task in range(after + 1))
        typer.echo(f"after task {after}: {shown}")
    typer.echo(
        f"{run.path}: accuracy {found['accuracy']:.3f}, forgetting {found['forgetting']:.3f}; "
        f"among all classes {found['accuracy_all_classes']:.3f}"
    )
