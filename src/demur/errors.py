"""The errors that demur raises for people to read: one sentence that names what is wrong and what to do."""

from __future__ import annotations

__all__ = ["DemurError", "RowError", "TooLongError", "UnknownNameError", "UsageError"]


class DemurError(Exception):
    """Something failed while the work was under way (exit code 1)."""

    exit_code = 1


class UsageError(DemurError, ValueError):
    """What was asked for cannot be done as asked (exit code 2)."""

    exit_code = 2


class RowError(UsageError):
    """A row of a data set is not what it must be; the message names the file, the line and the column."""

    def __init__(self, file: str, line: int | None, column: str | None, problem: str) -> None:
        where = file if line is None else f"{file}, line {line}"
        super().__init__(f"{where}{f', column {column!r}' if column else ''}: {problem}")
        self.file, self.line, self.column, self.problem = file, line, column, problem


class TooLongError(UsageError):
    """A text is longer than the model can read."""


class UnknownNameError(UsageError, KeyError):
    """A name that no registry entry answers to; the message suggests the nearest ones."""

    def __str__(self) -> str:  # KeyError would show the quoted repr
        return str(self.args[0])
