"""The picture: server CPU per operation, a field of bars for each load."""

import importlib
import math
from pathlib import Path
from typing import Any

from benchmarks.report import OURS, Report, duration

COLUMNS = 4
COLOURS = {
    OURS: "#0b6e4f",
    "distribution": "#4a6fa5",
    "docker-registry": "#8aa4c8",
    "olareg": "#c58b4e",
    "zot": "#9b5f8f",
    "nginx": "#9a9a9a",
    "floor": "#9a9a9a",
}


def draw(report: Report, path: Path) -> None:
    """Write a PNG; raises ``ImportError`` without matplotlib (requirements/bench.txt)."""
    matplotlib: Any = importlib.import_module("matplotlib")
    matplotlib.use("agg")
    pyplot: Any = importlib.import_module("matplotlib.pyplot")
    loads = {name: [one for one in group if one.samples] for name, group in report.loads().items()}
    rows = math.ceil(len(loads) / COLUMNS)
    figure, axes = pyplot.subplots(rows, COLUMNS, figsize=(18, 2.3 * rows + 0.8), squeeze=False)
    for axis in axes.flat[len(loads) :]:
        axis.set_visible(False)
    for axis, (name, group) in zip(axes.flat, loads.items(), strict=False):
        costs = [one.median("cpu") for one in group]
        bars = axis.barh(
            [one.peer for one in group], costs, color=[COLOURS.get(one.peer, "#777777") for one in group]
        )
        axis.bar_label(bars, labels=[f" {duration(cost)}" for cost in costs], fontsize=8)
        axis.set_title(name, fontsize=10, loc="left", fontweight="bold")
        axis.set_xlim(0, max([*costs, 1e-9]) * 1.3)
        axis.set_xticks([])
        axis.invert_yaxis()
        axis.tick_params(axis="y", labelsize=8, length=0)
        for side in ("top", "right", "bottom"):
            axis.spines[side].set_visible(False)
    figure.suptitle(
        f"Server CPU per operation, less is better - {report.started}, {report.machine['cpu']}", fontsize=12
    )
    figure.tight_layout(rect=(0, 0, 1, 0.97 if rows > 2 else 0.92))
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
