"""Labels next to their points, placed without covering each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.transforms import Bbox

FONT_SIZE = 9
GAP = 4
"""Points between a marker and its label, and between two labels."""
_LEADER = {"arrowstyle": "-", "color": "0.6", "linewidth": 0.7, "shrinkA": 1, "shrinkB": 3}


def plain(name: str) -> str:
    """``name`` for matplotlib, which reads text between two $ as mathematics, and leaves a
    label that begins with _ out of a legend."""
    name = name.replace("$", r"\$")
    return f" {name}" if name.startswith("_") else name


def place_labels(
    axes: Axes, points: Sequence[tuple[str, float, float]], lines: Sequence[tuple[str, float]]
) -> None:
    """Name points (name, x, y) and lines across (name, y): the first place that is free.

    A label away from its point is tied to it by a thin line.
    """
    from matplotlib.transforms import Bbox

    figure: Any = axes.figure
    figure.draw_without_rendering()  # the layout settles before pixels are measured
    renderer = figure.canvas.get_renderer()
    pixel = figure.dpi / 72
    frame = axes.get_window_extent(renderer)
    centres = [axes.transData.transform((x, y)) for _, x, y in points]
    taken = [
        Bbox.from_bounds(x - 5 * pixel, y - 5 * pixel, 10 * pixel, 10 * pixel) for x, y in centres
    ]
    for name, y in lines:
        height = axes.transData.transform((axes.get_xlim()[0], y))[1]
        text = axes.annotate(
            plain(name),
            (0, y),
            (4, 3),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            fontsize=FONT_SIZE,
        )
        taken.append(text.get_window_extent(renderer))
        taken.append(Bbox.from_bounds(frame.x0, height - 1, frame.width, 2))
    # Crowded columns first from the top, so that leader lines of one column never cross.
    for index in sorted(range(len(points)), key=lambda i: (-centres[i][1], centres[i][0])):
        name, x, y = points[index]
        probe = axes.annotate(plain(name), (x, y), fontsize=FONT_SIZE)
        extent = probe.get_window_extent(renderer)
        probe.remove()
        width, height = extent.width / pixel, extent.height / pixel
        others = taken[:index] + taken[index + 1 :]
        (dx, dy), box = _free_place(centres[index], (width, height), pixel, frame, others)
        taken.append(box)
        is_far = abs(dy) > height or dx > 3 * GAP or dx < -width - 3 * GAP
        axes.annotate(
            plain(name),
            (x, y),
            (dx, dy),
            textcoords="offset points",
            fontsize=FONT_SIZE,
            va="center",
            arrowprops=_LEADER | {"relpos": (0 if dx > 0 else 1, 0.5)} if is_far else None,
        )


def _free_place(
    centre: np.ndarray, size: tuple[float, float], pixel: float, frame: Bbox, others: Sequence[Bbox]
) -> tuple[tuple[float, float], Bbox]:
    """The first of the candidates, in points, whose box of this size is free, and the box in
    pixels; where none is, next to the point."""
    from matplotlib.transforms import Bbox

    width, height = size
    for dx, dy in _candidates(width, height):
        left, bottom = centre[0] + dx * pixel, centre[1] + (dy - height / 2) * pixel
        box = Bbox.from_bounds(left, bottom, width * pixel, height * pixel)
        inside = frame.x0 <= box.x0 and box.x1 <= frame.x1
        inside = inside and frame.y0 <= box.y0 and box.y1 <= frame.y1
        if inside and not any(box.overlaps(other) for other in others):
            return (dx, dy), box
    dx, dy = GAP * 2, 0.0
    return (dx, dy), Bbox.from_bounds(
        *(centre[0] + dx, centre[1] + dy), width * pixel, height * pixel
    )


def _candidates(width: float, height: float) -> Iterator[tuple[float, float]]:
    """Offsets in points of a label's left middle: next to the point, then further away."""
    near = 2.0 * GAP
    yield near, 0
    yield -width - near, 0
    yield -width / 2, height + GAP / 2
    yield -width / 2, -height - GAP / 2
    for distance in range(1, 12):
        for dy in (distance * (height * 0.75), -distance * (height * 0.75)):
            yield near + GAP * 2.5, dy
            yield -width - near - GAP * 2.5, dy
