"""The layout of a page: rows, tables, and the characters of each line or cell."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mnist_cnn.data.synthetic.sheet import OTHER, STRIDE
from mnist_cnn.data.synthetic.strokes import Points
from mnist_cnn.detection.decode import Character
from mnist_cnn.detection.lines import lines, middles, slope_of
from mnist_cnn.reading.grids import Grid, grids
from mnist_cnn.reading.views import View

INSIDE = 0.8  # minimum fraction of a grid's characters within one cell; else it is squared paper
Cell = tuple[int, int, int]  # grid, row, column
Item = tuple[Character | None, Cell | None]  # a character, None in an empty cell, and its cell


@dataclass(frozen=True)
class Line:
    """Characters that are read together: those of a row, or of a cell, which may be empty."""

    row: int  # of the page, from 0 at the top
    cell: Cell | None
    characters: list[Character]  # from left to right

    @property
    def digits(self) -> list[Character]:
        return [each for each in self.characters if each.symbol.isdecimal()]

    @property
    def lead(self) -> int:
        """How many more digits it has than characters that are neither digits nor signs."""
        return len(self.digits) - sum(each.symbol == OTHER for each in self.characters)

    @property
    def illegible(self) -> list[Character]:
        """Other writing in a line of more digits: taken for illegible digits."""
        return [each for each in self.characters if each.is_other] if self.lead > 0 else []

    def left_unread(self, right: float, threshold: float) -> list[Character]:
        """Return the digits to leave unread, whatever their scores.

        All digits of a line that is mostly other writing. If `right`, the probability that the
        digits are right, is below the threshold: the least certain digit, or all digits if the line
        has other writing.
        """
        others = any(each.is_other for each in self.characters)
        if self.lead < 0 or (right < threshold and others):
            return self.digits
        return sorted(self.digits, key=lambda each: each.score)[: right < threshold]


def layout(seen: View, found: Sequence[Character]) -> tuple[list[Grid], list[Line]]:
    """Return the tables of a page, and its lines from top to bottom, a cell's by itself."""
    tables, cells = placed(seen, found)
    made = []
    for number, row in enumerate(in_rows(seen, found, tables, cells)):
        for cell, items in itertools.groupby(row, lambda item: item[1]):
            made.append(Line(number, cell, [each for each, _ in items if each]))
    return tables, made


def placed(seen: View, found: Sequence[Character]) -> tuple[list[Grid], list[Cell | None]]:
    """Return the grids that the characters are written in, and the cell of each character."""
    cells: list[Cell | None] = [None] * len(found)
    kept: list[Grid] = []
    for grid in grids(seen.best.rules):
        own = {
            k: cell
            for k, each in enumerate(found)
            if cells[k] is None and (cell := grid.cell_of(*on_map(seen, each)))
        }
        whole = sum(fits(seen, grid, found[k], cell) for k, cell in own.items())
        if not own or whole < INSIDE * len(own):
            continue
        for k, cell in own.items():
            cells[k] = len(kept), *cell
        kept.append(grid)
    return kept, cells


def cell_in(seen: View, tables: Sequence[Grid], cell: Cell) -> Points:
    """Return the corners (4, 2) of a cell in the ink."""
    grid, row, column = cell
    return seen.best.off_map(tables[grid].cell(row, column))


def on_map(seen: View, each: Character) -> tuple[float, float]:
    """Return the centre of a character in the map of ruled lines."""
    x, y = seen.best.on_map(middles([each])[0]).tolist()
    return x, y


def fits(seen: View, grid: Grid, each: Character, cell: tuple[int, int]) -> bool:
    """Return whether a character is no higher than its cell."""
    x, y = on_map(seen, each)
    half = each.height * seen.best.zoom / STRIDE / 2 * 0.7
    return grid.cell_of(x, y - half) == cell == grid.cell_of(x, y + half)


def in_rows(
    seen: View, found: Sequence[Character], tables: Sequence[Grid], cells: Sequence[Cell | None]
) -> list[list[Item]]:
    """Group characters into rows, from top to bottom, each with its cell in a grid."""
    slope = slope_of(found)
    rows: list[tuple[float, list[Item]]] = []
    free = [each for each, cell in zip(found, cells, strict=True) if cell is None]
    for line in lines(free):
        rows.append((level(middles(line), slope), [(each, None) for each in line]))
    for number, grid in enumerate(tables):
        within: dict[tuple[int, int], list[Character]] = {}
        for each, cell in zip(found, cells, strict=True):
            if cell is not None and cell[0] == number:
                within.setdefault(cell[1:], []).append(each)
        height, width = grid.shape
        for row in range(height):
            items: list[Item] = []
            own = [(number, row, column) for column in range(width)]
            for place in own:
                part = sorted(within.get(place[1:], []), key=lambda each: each.box[0])
                items += [(each, place) for each in part] or [(None, place)]
            # the position of its cells, empty ones included
            corners = np.concatenate([cell_in(seen, tables, cell) for cell in own])
            rows.append((level(corners, slope), items))
    return [items for _, items in sorted(rows, key=lambda row: row[0])]


def level(points: Points, slope: float) -> float:
    """Return the height at the left edge of a line of that slope through points (N, 2)."""
    x, y = points.mean(0)
    return float(y - slope * x)
