"""The picture: server CPU per operation on one core, a field of bars for each load."""

import importlib
import math
from pathlib import Path
from typing import Any

from benchmarks.report import ONE, OURS, Document, duration

COLUMNS = 5
COLOURS = {
    OURS: "#0b6e4f",
    "distribution": "#4a6fa5",
    "docker-registry": "#8aa4c8",
    "olareg": "#c58b4e",
    "zot": "#9b5f8f",
    "nginx": "#9a9a9a",
    "floor": "#9a9a9a",
    "uvicorn": "#9a9a9a",
}


def draw(document: Document, path: Path) -> None:
    """Write a PNG; raises ``ImportError`` without matplotlib (requirements/bench.txt)."""
    matplotlib: Any = importlib.import_module("matplotlib")
    matplotlib.use("agg")
    pyplot: Any = importlib.import_module("matplotlib.pyplot")
    costs: dict[str, dict[str, float]] = {
        load: {peer: found["cpu_seconds_per_operation"] for peer, found in one["peers"].items() if "samples" in found}
        for load, one in document["tables"][ONE].items()
    }
    rows = max(1, math.ceil(len(costs) / COLUMNS))
    figure, axes = pyplot.subplots(rows, COLUMNS, figsize=(20, 2.2 * rows + 0.8), squeeze=False)
    for axis in axes.flat[len(costs) :]:
        axis.set_visible(False)
    for axis, (name, group) in zip(axes.flat, costs.items(), strict=False):
        bars = axis.barh(
            list(group), list(group.values()), color=[COLOURS.get(peer, COLOURS[OURS]) for peer in group]
        )
        axis.bar_label(bars, labels=[f" {duration(cost)}" for cost in group.values()], fontsize=8)
        axis.set_title(name, fontsize=10, loc="left", fontweight="bold")
        axis.set_xlim(0, max([*group.values(), 1e-9]) * 1.3)
        axis.set_xticks([])
        axis.invert_yaxis()
        axis.tick_params(axis="y", labelsize=8, length=0)
        for side in ("top", "right", "bottom"):
            axis.spines[side].set_visible(False)
    figure.suptitle(
        f"Server CPU per operation, less is better - {document['started']}, {document['machine']['cpu']}", fontsize=12
    )
    figure.tight_layout(rect=(0, 0, 1, 0.97 if rows > 2 else 0.92))
    figure.savefig(path, dpi=100)
    pyplot.close(figure)
