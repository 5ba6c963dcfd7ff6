"""The grids of cells on which convolutions see an image, from the finest to the coarsest."""

MIN_GRID = 7
"""Grids are halved while their shorter side is larger than this."""


def grids_of(height: int, width: int, patch_size: int) -> list[tuple[int, int]]:
    """Rows and columns of each grid; a cell of the finest holds patch_size x patch_size pixels."""
    rows, columns = -(-height // patch_size), -(-width // patch_size)
    halvings = 0
    while min(rows, columns) > MIN_GRID:
        rows, columns, halvings = -(-rows // 2), -(-columns // 2), halvings + 1
    return [(rows << level, columns << level) for level in range(halvings, -1, -1)]


def widths_of(base_width: int, max_width: int, num_grids: int) -> list[int]:
    """Feature maps on each grid: doubled from one to the next, up to the most."""
    return [min(base_width << level, max_width) for level in range(num_grids)]
