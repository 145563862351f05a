"""Plot of the router: the load of each expert by domain, and the router's confidence."""

from pathlib import Path

import numpy as np

from distill.evaluation.routing import Routing
from distill.report.labels import plain
from distill.report.plots import BLUE, HATCHES, PALETTE, as_percent, new_figure, save

NUM_BINS = 20


def router_png(routing: Routing, path: str | Path) -> Path:
    """Left: load of each expert, by the rows' domain. Right: largest router probability."""
    figure, (left, right) = new_figure(9.6, 4.6, num_columns=2)
    places = np.arange(len(routing.names))
    below_K = np.zeros(len(routing.names))
    for index, (domain, load_K) in enumerate(routing.load_by_domain().items()):
        left.bar(
            places,
            load_K,
            0.72,
            below_K,
            color=PALETTE[index % len(PALETTE)],
            hatch=HATCHES[index // len(PALETTE) % len(HATCHES)],
            edgecolor="white",
            label=plain(domain),
        )
        below_K = below_K + load_K
    for place, load in zip(places, below_K, strict=True):
        left.annotate(
            f"{load * 100:.1f}",
            (place, load),
            (0, 3),
            textcoords="offset points",
            ha="center",
            fontsize=9,
            zorder=4,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},
        )
    even = 1 / len(routing.names)
    left.axhline(even, color="0.35", linestyle="--", linewidth=1, zorder=3, label="even load")
    left.set_ylim(0, max(below_K.max(), even) * 1.12)
    is_crowded = sum(map(len, routing.names)) > 44
    angle = {"rotation": 30, "ha": "right"} if is_crowded else {}
    left.set_xticks(places, [plain(name) for name in routing.names], **angle)
    left.tick_params(axis="x", length=0)
    by_domain = ", by the rows' domain" if routing.domain_names else ""
    left.set_ylabel(f"share of selections{by_domain}")
    left.yaxis.set_major_formatter(as_percent)
    left.legend(loc="lower center", bbox_to_anchor=(0.5, 1.01), ncols=3, frameon=False)
    confidence_R = routing.confidence_R
    weights_R = np.full(len(confidence_R), 1 / max(len(confidence_R), 1))
    bins = np.linspace(even, 1, NUM_BINS + 1)
    right.hist(confidence_R, bins, weights=weights_R, color=BLUE, edgecolor="white")
    mean = float(confidence_R.mean())
    right.axvline(mean, color="0.35", linestyle="--", linewidth=1, label=f"mean {mean:.2f}")
    right.set_xlabel(f"largest router probability (from {even:.2g} to 1)")
    right.set_ylabel("share of rows of the test split")
    right.yaxis.set_major_formatter(as_percent)
    right.legend(loc="lower center", bbox_to_anchor=(0.5, 1.01), frameon=False)
    for axes in (left, right):
        axes.grid(axis="y", color="0.9", linewidth=0.8)
        axes.set_axisbelow(True)
    return save(figure, path)
