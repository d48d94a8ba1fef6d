"""Tables of people as vectors and back: numbers scaled to [0, 1], one column for each further value of a word."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from demur.errors import RowError, UsageError
from demur.registry import nearest

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[np.float64]

__all__ = ["Column", "TableEncoding", "read_table"]


def read_table(file: str | Path) -> pd.DataFrame:
    """A `.csv`, `.csv.gz` or `.parquet` file.

    Raises:
        UsageError: it cannot be read, or holds no row.
    """
    import pandas as pd

    path = Path(file)
    try:
        table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path, skipinitialspace=True)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read as a table: {error}") from error
    if not len(table):
        raise UsageError(f"{path} has no rows")
    return table


@dataclass(frozen=True)
class Column:
    """A column of the table and where it stands in the vector.

    Attributes:
        name: its name.
        first: its first feature.
        low, span: a number x becomes (x − low) / span.
        whole: its numbers are whole ones.
        values: a word's values; the first has no feature of its own. Empty for numbers.
    """

    name: str
    first: int
    low: float = 0.0
    span: float = 1.0
    whole: bool = False
    values: tuple[Any, ...] = ()

    @property
    def features(self) -> slice:
        """Its features."""
        return slice(self.first, self.first + (len(self.values) - 1 if self.values else 1))


@dataclass(frozen=True)
class TableEncoding:
    """How a table's rows become vectors: min-max scaled numbers, then drop-first indicator columns.

    Attributes:
        columns: in the vector's order.
    """

    columns: tuple[Column, ...]

    scaling = "min-max scaling (a number's whole range is 1, another category 1 or √2)"

    @classmethod
    def of(cls, table: pd.DataFrame, file: str = "the table") -> TableEncoding:
        """The encoding that a table of features calls for.

        Raises:
            RowError: a cell is empty.
        """
        numbers = [name for name in table.columns if table[name].dtype.kind in "iuf"]
        columns: list[Column] = []
        for name in numbers:
            values = table[name].to_numpy(float)
            if np.isnan(values).any():
                row = int(np.isnan(values).argmax()) + 2
                raise RowError(file, row, name, "is empty: fill it or drop the column")
            whole = bool((values == np.round(values)).all())
            columns.append(Column(name, len(columns), values.min(), (values.max() - values.min()) or 1.0, whole))
        first = len(columns)
        for name in table.columns:
            if name not in numbers:
                if table[name].isna().any():
                    row = int(table[name].isna().argmax()) + 2
                    raise RowError(file, row, name, "is empty: fill it or drop the column")
                columns.append(Column(name, first, values=tuple(sorted(table[name].unique()))))
                first += len(columns[-1].values) - 1
        return cls(tuple(columns))

    @property
    def width(self) -> int:
        """Number of features."""
        return self.columns[-1].features.stop

    def encode(self, table: pd.DataFrame, file: str = "the table") -> Array:
        """(rows, features) vectors.

        Raises:
            UsageError: a column is missing.
            RowError: a cell is empty, no number, or a value that the encoding does not know.
        """
        out = np.zeros((len(table), self.width))
        for column in self.columns:
            if column.name not in table:
                raise UsageError(f"{file} has no column {column.name!r}: it has {', '.join(map(str, table.columns))}")
            cells = table[column.name]
            if column.values:
                out[:, column.features] = self._indicators(column, cells, file)
            else:
                out[:, column.first] = (self._numbers(column, cells, file) - column.low) / column.span
        return out

    @staticmethod
    def _indicators(column: Column, cells: pd.Series[Any], file: str) -> Array:
        import pandas as pd

        places = pd.Index(column.values).get_indexer(pd.Index(cells))
        if (places < 0).any():
            row = int((places < 0).argmax())
            value, known = cells.iloc[row], ", ".join(map(str, column.values))
            problem = "is empty: fill it or drop the column" if pd.isna(value) else f"{value!r} is none of {known}"
            raise RowError(file, row + 2, column.name, problem)
        return np.eye(len(column.values))[places, 1:]

    @staticmethod
    def _numbers(column: Column, cells: pd.Series[Any], file: str) -> Array:
        import pandas as pd

        values = pd.to_numeric(cells, errors="coerce").to_numpy(float)
        wrong = ~np.isfinite(values)
        if wrong.any():
            row = int(wrong.argmax())
            value = cells.iloc[row]
            problem = "is empty: fill it or drop the column" if pd.isna(value) else f"{value!r} is no number"
            raise RowError(file, row + 2, column.name, problem)
        return values

    def decode(self, x: ArrayLike) -> dict[str, Any]:
        """A vector as a row of the table."""
        point, row = np.asarray(x, float), {}
        for column in self.columns:
            part = point[column.features]
            if column.values:
                row[column.name] = column.values[int(part.argmax()) + 1 if part.size and part.max() > 0.5 else 0]
            else:
                value = float(part[0] * column.span + column.low)
                row[column.name] = round(value) if column.whole and abs(value - round(value)) < 1e-6 else value
        return row

    def changes(self, x0: ArrayLike, x: ArrayLike) -> list[tuple[str, Any, Any]]:
        """Column, value before and value after, where they differ."""
        before, after = self.decode(x0), self.decode(x)
        return [(name, before[name], after[name]) for name in before if before[name] != after[name]]

    def actionable(self, immutable: Sequence[str]) -> NDArray[np.bool_]:
        """(features,) what may change if some columns may not.

        Raises:
            UsageError: there is no such column.
        """
        free = np.ones(self.width, bool)
        for name in immutable:
            found = [column for column in self.columns if column.name == name]
            if not found:
                raise UsageError(f"there is no column {name!r}: {nearest(name, [c.name for c in self.columns])}")
            free[found[0].features] = False
        return free

    def choices(self, x0: Array, free: NDArray[np.bool_], most: int) -> Iterable[Array]:
        """x0 with up to `most` of its free categories changed, in order of the distance that costs."""
        words = [c for c in self.columns if c.values and free[c.features].all()]
        found, level = [x0], [(x0, -1)]
        for _ in range(most):
            level = [
                (changed, place)
                for point, last in level
                for place, column in enumerate(words)
                if place > last
                for changed in _others(point, column)
            ]
            found += [point for point, _ in level]
        return sorted(found, key=lambda point: float(np.linalg.norm(point - x0)))

    def snapped(self, x: Array, x0: Array, free: NDArray[np.bool_]) -> Array:
        """The nearest category, and whole numbers on the far side of x as seen from x0; what is not free stays."""
        out = x.copy()
        for column in self.columns:
            part = slice(column.first, column.features.stop)
            if not free[part].all():
                continue
            if column.values:
                out[part] = 0.0
                if x[part].size and x[part].max() > 0.5:
                    out[column.first + int(x[part].argmax())] = 1.0
            elif column.whole and abs(x[column.first] - x0[column.first]) > 1e-9:
                raw = x[column.first] * column.span + column.low
                away = np.ceil(raw - 1e-7) if x[column.first] > x0[column.first] else np.floor(raw + 1e-7)
                out[column.first] = (away - column.low) / column.span
        return out


def _others(point: Array, column: Column) -> Iterable[Array]:
    for place in range(len(column.values)):
        changed = point.copy()
        changed[column.features] = 0.0
        if place:
            changed[column.first + place - 1] = 1.0
        if (changed != point).any():
            yield changed
