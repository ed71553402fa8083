"""Lines and grids of the characters detected on a page."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from mnist_cnn.data.synthetic.sheet import SYMBOLS
from mnist_cnn.detection.decode import Character, grouped, merged
from mnist_cnn.detection.find import Found
from mnist_cnn.detection.lines import leaning, lines, slope_of
from mnist_cnn.reading.grids import Grid, fitted, grids
from mnist_cnn.reading.layout import in_rows
from mnist_cnn.reading.views import View


def character(symbol: str, x: float, y: float, height: float = 30, found: float = 0.9) -> Character:
    """Make a character centered at (x, y)."""
    probabilities = np.full(len(SYMBOLS), 0.1 / (len(SYMBOLS) - 1), np.float32)
    probabilities[SYMBOLS.index(symbol)] = 0.9
    box = (x - height / 3, y - height / 2, x + height / 3, y + height / 2)
    return Character(box, found, probabilities)


def row(text: str, x: float, y: float, step: float = 30, slope: float = 0.0) -> list[Character]:
    return [
        character(symbol, x + k * step, y + slope * k * step, 8 if symbol in ".,-" else 30)
        for k, symbol in enumerate(text)
    ]


def texts(found: list[Character]) -> list[str]:
    return ["".join(each.symbol for each in line) for line in lines(found)]


def test_lines_are_read_from_top_to_bottom_and_from_left_to_right():
    found = [*row("456", 50, 100), *row("123", 20, 40)]
    assert texts(found[::-1]) == ["123", "456"]


@pytest.mark.parametrize("slope", [-0.15, 0.1, 0.2])
def test_a_line_may_slope(slope):
    found = [*row("1234567", 50, 150, slope=slope), *row("7654321", 50, 215, slope=slope)]
    assert slope_of(found) == pytest.approx(slope, abs=0.02)
    assert texts(found) == ["1234567", "7654321"]


def test_rows_and_columns_stand_upright_and_a_row_that_climbs_leans():
    grid = [each for y in (40, 80, 120) for each in row("123", 20, y, slope=0.1)]
    assert leaning(grid) < 10
    assert leaning(row("12345", 20, 200, slope=-1.0)) == pytest.approx(45)


SEEN = View([], Found(1.0, [], np.zeros((1, 1))), np.zeros((1, 1)), 0, np.eye(2, 3))


def test_a_long_line_that_slopes_stands_above_a_short_one_below_its_beginning():
    upper, lower = row("123456789" * 3, 20, 40, slope=0.2), row("77", 20, 95, slope=0.2)
    found = [*lower, *upper]
    rows = in_rows(SEEN, found, [], [None] * len(found))
    assert ["".join(each.symbol for each, _ in line if each) for line in rows] == [
        "123456789" * 3,
        "77",
    ]


def test_rows_of_a_grid_that_is_turned_stay_in_order_whatever_is_in_them():
    turn = np.radians(12)
    right, down = np.array([np.cos(turn), np.sin(turn)]), np.array([-np.sin(turn), np.cos(turn)])
    place = np.eye(3)
    place[:2] = 10 * np.stack([right, down, [3, 1]], 1)  # in cells of the map, each 4 pixels wide
    cells = [(0, 0, 8), (0, 2, 0), (0, 1, 0)]
    found = []
    for k, (_, line, column) in enumerate(cells):
        x, y = 40 * (right * (column + 0.5) + down * (line + 0.5)) + [106, 26]
        found.append(character(str(k), x, y, 20))
    rows = in_rows(SEEN, found, [Grid((4, 9), place)], cells)
    assert [[cell[1] for _, cell in line if cell] for line in rows] == [[k] * 9 for k in range(4)]
    assert ["".join(each.symbol for each, _ in line if each) for line in rows] == [
        "0",
        "2",
        "1",
        "",
    ]


def test_signs_tell_the_slope_where_digits_stand_far_apart():
    assert texts(row("0=4+7+9", 20, 200, step=70, slope=-0.12)) == ["0=4+7+9"]


def test_a_point_belongs_to_the_line_at_whose_foot_it_is():
    found = [*row("12", 20, 40), character(".", 80, 53, 6), *row("34", 95, 40), *row("56", 20, 90)]
    assert texts(found) == ["12.34", "56"]


def test_nothing_gives_no_line():
    assert lines([]) == []


def test_of_characters_on_each_other_the_most_probable_is_kept():
    strong, weak = character("7", 50, 50), character("1", 52, 50, 25, found=0.4)
    assert [group[0].symbol for group in grouped([weak, strong])] == ["7"]


def test_a_slim_digit_that_leans_on_another_is_one_of_its_own():
    zero, one = character("0", 50, 50), character("1", 58, 50, found=0.6)
    slim = replace(one, box=(55.0, 35.0, 61.0, 65.0))
    assert [group[0].symbol for group in grouped([zero, slim])] == ["0", "1"]


def test_views_of_a_character_are_averaged():
    sure, other = character("7", 50, 50), character("1", 50, 50, found=0.45)
    (mean,) = merged([[sure], [other]])
    assert mean.symbol == "7"
    assert sure.probabilities.max() > mean.probabilities.max()


def ruled(rows: int, columns: int, corners: list[tuple[int, int]], size: int = 200) -> np.ndarray:
    """Draw a map of ruled lines with a grid in perspective."""
    ends = np.array([(0, 0), (columns, 0), (columns, rows), (0, rows)], np.float32)
    place = cv2.getPerspectiveTransform(ends, np.array(corners, np.float32))
    sheet = np.zeros((size, size), np.uint8)
    ways = [[(0, n), (columns, n)] for n in range(rows + 1)]
    ways += [[(n, 0), (n, rows)] for n in range(columns + 1)]
    for way in ways:
        points = cv2.perspectiveTransform(np.array([way], np.float32), place).round().astype(int)
        cv2.polylines(sheet, [points.astype(np.int32)], False, 255, 2)
    return sheet / np.float32(255)


CORNERS = {
    "level": [(20, 20), (180, 20), (180, 180), (20, 180)],
    "turned": [(50, 15), (185, 50), (150, 185), (15, 150)],
    "in perspective": [(50, 30), (150, 25), (190, 180), (15, 185)],
}


@pytest.mark.parametrize("corners", CORNERS.values(), ids=CORNERS)
def test_a_grid_is_found_with_each_of_its_cells(corners):
    (grid,) = grids(ruled(9, 9, corners))
    assert grid.shape == (9, 9)
    found = [grid.cell(0, 0)[0], grid.cell(0, 8)[1], grid.cell(8, 8)[2], grid.cell(8, 0)[3]]
    np.testing.assert_allclose(found, corners, atol=4)
    ends = np.array([(0, 0), (9, 0), (9, 9), (0, 9)], np.float32)
    place = cv2.getPerspectiveTransform(ends, np.array(corners, np.float32))
    for r in range(9):
        for c in range(9):
            ((x, y),) = cv2.perspectiveTransform(
                np.array([[(c + 0.5, r + 0.5)]], np.float32), place
            )[0]
            assert grid.cell_of(x, y) == (r, c)
    assert grid.cell_of(0, 0) is None


def test_a_grid_survives_a_gap_in_a_line():
    rules = ruled(9, 9, CORNERS["level"])
    rules[58:70, 86:94] = 0
    (grid, *_) = grids(rules)
    assert grid.shape == (9, 9)


def test_a_row_of_boxes_is_a_grid_of_one_row():
    (grid,) = grids(ruled(1, 6, [(20, 80), (180, 85), (180, 112), (20, 107)]))
    assert grid.shape == (1, 6)


def test_cells_that_do_not_determine_a_grid_raise_nothing():
    own = {k: (k, 0) for k in range(9)} | {9: (4, 1)}  # a row, and a single cell below it
    held = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        unit = np.array([(1, 1), (9, 1), (9, 9), (1, 9)], float)
        corners = 10 * np.array(list(own.values()))[:, None] + unit
        corners += rng.normal(0, 1, corners.shape).round()
        grid = fitted(corners, own)
        if grid is not None:
            held += sum(grid.cell_of(*middle) is not None for middle in corners.mean(1))
    assert held > 0
    for place in (np.zeros((3, 3)), np.eye(3)[[0, 2, 1]]):  # singular; y is at infinity
        assert Grid((2, 2), place).cell_of(0.5, 0) is None


def test_lines_that_enclose_nothing_are_no_grid():
    rules = np.zeros((100, 100), np.float32)
    rules[::20] = 1
    assert grids(rules) == []
