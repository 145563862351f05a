"""The mean weight of each teacher in each domain: a table, and a plot of stacked bars."""

from __future__ import annotations

from pathlib import Path

from distill.evaluation.routing import MeanWeights
from distill.report.labels import plain
from distill.report.plots import HATCHES, PALETTE, as_percent, new_figure, save


def weights_table(weights: MeanWeights) -> str:
    """Markdown, a line for each domain and one for all."""
    lines = [
        f"| domain | {' | '.join(weights.names)} |",
        "|---|" + "---:|" * len(weights.names),
    ]
    for domain, shares_K in weights.by_domain().items():
        cells = " | ".join(f"{share:.3f}" for share in shares_K)
        lines.append(f"| {domain} | {cells} |")
    return "\n".join(lines) + "\n"


def weights_png(weights: MeanWeights, path: str | Path) -> Path:
    """One bar for each domain and one for all, from the first teacher at the bottom to 1."""
    shares = weights.by_domain()
    figure, axes = new_figure(max(8.0, 1.1 * len(shares)), 4.6)
    places = range(len(shares))
    below = [0.0] * len(shares)
    for k, name in enumerate(weights.names):
        heights = [shares_K[k] for shares_K in shares.values()]
        bars = axes.bar(
            places,
            heights,
            0.72,
            below,
            color=PALETTE[k % len(PALETTE)],
            hatch=HATCHES[k // len(PALETTE) % len(HATCHES)],
            edgecolor="white",
            label=plain(name),
        )
        texts = [f"{height * 100:.0f}" if height >= 0.05 else "" for height in heights]
        box = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
        axes.bar_label(bars, texts, label_type="center", fontsize=8, bbox=box)
        below = [low + height for low, height in zip(below, heights, strict=True)]
    axes.set_xticks(places, [plain(domain) for domain in shares])
    axes.tick_params(axis="x", length=0)
    axes.set_ylim(0, 1)
    axes.set_ylabel("mean weight on the test split")
    axes.yaxis.set_major_formatter(as_percent)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.01), ncols=4, frameon=False)
    axes.grid(axis="y", color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    return save(figure, path)
