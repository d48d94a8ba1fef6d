"""Work on many items at once that asks engines prompt by prompt: what all items wait for is asked in one batch."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from demur.errors import TooLongError
from demur.models.engine import Engine, Generation, Prompt, ResponseScore

__all__ = ["Gathering"]

T = TypeVar("T")
R = TypeVar("R")


@dataclass
class _Call:
    """A question that a thread waits on, until it has an answer or an error."""

    engine: Engine
    prompts: Sequence[Prompt]
    options: dict[str, Any]
    answers: list[Generation] | None = None
    error: BaseException | None = None


class Gathering:
    """Runs a function on items in threads, and answers together what these ask of its engines.

    Engines whose answers do not depend on what else is in the batch, as those of `demur.models` do not, answer as they
    would have answered one prompt at a time. They run in the thread that iterates over `map`.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._calls: list[_Call] = []
        self._stopped = False

    def around(self, engine: Engine) -> Engine:
        """The engine as the function is to see it."""
        return _Gathered(self, engine)

    def map(self, function: Callable[[T], R], items: Sequence[T], workers: int) -> Iterator[tuple[T, R]]:
        """Each item with what the function made of it, as they are finished.

        Args:
            function: may ask engines that went through `around`, and no others from here.
            items: what it is called with.
            workers: items under way at once.

        Raises:
            BaseException: what the function or an engine raised; the other items are given up.
        """
        waiting = iter(items)
        live = min(workers, len(items))
        ended: list[tuple[T, R]] = []
        failed: list[BaseException] = []

        def work() -> None:
            nonlocal live
            try:
                while True:
                    with self._changed:
                        item = next(waiting, _NONE)
                    if item is _NONE or self._stopped:
                        return
                    result = function(item)  # type: ignore[arg-type]
                    with self._changed:
                        ended.append((item, result))  # type: ignore[arg-type]
                        self._changed.notify_all()
            except BaseException as error:
                failed.append(error)
            finally:
                with self._changed:
                    live -= 1
                    self._changed.notify_all()

        threads = [threading.Thread(target=work, daemon=True) for _ in range(live)]
        for thread in threads:
            thread.start()
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: ended or failed or len(self._calls) == live)
                    done, ended[:] = ended[:], []
                    calls = [] if failed or len(self._calls) < live else self._calls[:]
                    last = not live
                yield from done
                if failed:
                    raise failed[0]
                if calls:
                    self._answer(calls)
                elif last and not ended:
                    return
        finally:
            with self._changed:
                self._stopped = True
                self._changed.notify_all()
            for thread in threads:
                thread.join()

    def ask(self, engine: Engine, prompts: Sequence[Prompt], options: dict[str, Any]) -> list[Generation]:
        """Wait until every other item waits too or is finished, then for the answers."""
        call = _Call(engine, prompts, options)
        with self._changed:
            self._calls.append(call)
            self._changed.notify_all()
            self._changed.wait_for(lambda: call.answers is not None or call.error or self._stopped)
        if call.answers is None:
            raise call.error or RuntimeError("the work was given up")
        return call.answers

    def _answer(self, calls: list[_Call]) -> None:
        groups: dict[tuple[int, str], list[_Call]] = {}
        for call in calls:
            groups.setdefault((id(call.engine), repr(sorted(call.options.items()))), []).append(call)
        for group in groups.values():
            self._answer_together(group)
        with self._changed:
            self._calls = [call for call in self._calls if call.answers is None and call.error is None]
            self._changed.notify_all()

    def _answer_together(self, group: list[_Call]) -> None:
        """One batch; where a prompt is too long, each call on its own, so that only the one at fault fails."""
        prompts = [prompt for call in group for prompt in call.prompts]
        try:
            answers = iter(group[0].engine.generate(prompts, **group[0].options))
        except TooLongError as error:
            if len(group) == 1:
                group[0].error = error
                return
            for call in group:
                self._answer_together([call])
            return
        for call in group:
            call.answers = [next(answers) for _ in call.prompts]


_NONE = object()


class _Gathered:
    """An `Engine` whose questions wait for those of other threads."""

    def __init__(self, gathering: Gathering, engine: Engine) -> None:
        self._gathering, self._engine = gathering, engine

    def generate(self, prompts: Sequence[Prompt], **options: Any) -> list[Generation]:
        """See `Engine.generate`."""
        return self._gathering.ask(self._engine, prompts, options)

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[ResponseScore]:
        """See `Engine.score`; nothing is gathered."""
        return self._engine.score(prompts, responses)
