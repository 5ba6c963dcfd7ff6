import io

import numpy as np
from PIL import Image

from tasks.plots import curve, grid, side_by_side


def opened(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)))


def test_a_grid_repeats_pixels_and_keeps_the_order_of_rows() -> None:
    images = np.stack([np.full((1, 8, 8), value, np.uint8) for value in (10, 20, 30)])

    sheet = opened(grid(images, columns=2, side=16))

    assert sheet.shape == (34, 34)  # two rows and columns of 16 pixels, a gap of 2
    assert (sheet[:16, :16] == 10).all()
    assert (sheet[:16, 18:] == 20).all()
    assert (sheet[18:, :16] == 30).all()
    assert (sheet[18:, 18:] == 255).all()  # no fourth image
    assert (sheet[16:18] == 255).all()


def test_colour_stays_colour() -> None:
    red = np.zeros((1, 3, 8, 8), np.uint8)
    red[:, 0] = 200

    sheet = opened(grid(red, columns=1, side=8))

    assert sheet.shape == (8, 8, 3)
    assert (sheet == [200, 0, 0]).all()


def test_large_images_are_not_shrunk() -> None:
    assert opened(grid(np.zeros((1, 1, 64, 64), np.uint8), columns=1, side=48)).shape == (64, 64)


def test_a_curve_goes_from_left_to_right_and_down_when_values_fall() -> None:
    svg = curve([(1, 4.0), (5, 2.0), (10, 1.0)], width=100, height=50)

    pairs = svg.split('points="')[1].split('"')[0].split()
    points = [tuple(map(float, pair.split(","))) for pair in pairs]
    assert [x for x, _ in points] == [10.0, 50.0, 100.0]
    assert points[0][1] < points[1][1] < points[2][1]  # y grows downwards in SVG
    assert all(0 <= y <= 50 for _, y in points)


def test_one_point_is_no_curve_and_a_constant_is_a_line() -> None:
    assert curve([(1, 2.0)]) == ""
    assert "NaN" not in curve([(1, 2.0), (2, 2.0)])
    assert "nan" not in curve([(1, 2.0), (2, 2.0)])


def test_two_grids_stand_side_by_side_with_a_gap() -> None:
    black, grey = (np.full((4, 1, 8, 8), value, np.uint8) for value in (0, 100))

    sheet = opened(side_by_side(black, grey, columns=2, side=8))

    assert sheet.shape == (18, 18 + 4 + 18)  # two rows of 8 pixels and the line between them
    assert set(np.unique(sheet[:, :18])) == {0, 255}
    assert set(np.unique(sheet[:, 18:22])) == {255}
    assert set(np.unique(sheet[:, 22:])) == {100, 255}
