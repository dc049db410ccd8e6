"""Plot the curves of runs from their metrics.csv."""

import csv
import io
import struct
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from conf.options import UserError
from pipeline.output import is_marked, mark, require_own_file
from pipeline.storage import write_atomically
from training.config import QUARTERS, PlotConfig

COMMAND = "training.plot"
SIZE_IN, DPI = (13, 7), 110
FORMATS = (".png", ".svg", ".pdf")
Table = dict[str, tuple[list[int], list[float]]]  # column -> steps and values


def plot(config: PlotConfig) -> None:
    """Write the figure of all runs.

    Raises:
        UserError: No run is given, the output is a file of others, or a `metrics.csv` is missing or damaged.
    """
    if not config.runs:
        raise UserError("runs: not set; use the folder of a run, or several with commas")
    output = Path(config.output or Path(config.runs[0]) / "curves.png")
    if output.suffix not in FORMATS:
        raise UserError(f"output={output}: must end in {', '.join(FORMATS)}")
    require_own_file(str(output), is_plot)
    tables = {name: read_metrics(Path(name)) for name in config.runs}
    names = [Path(name).name for name in tables]
    figure = Figure(figsize=SIZE_IN, layout="constrained")
    panels = figure.subplots(2, 3).flatten()
    for index, (name, table) in enumerate(tables.items()):
        colour = f"C{index % 10}"
        label = (Path(name).name if names.count(Path(name).name) == 1 else name) if len(tables) > 1 else ""
        _line(panels[0], table, "loss", color=colour, alpha=0.25, linewidth=0.8)
        _line(panels[0], table, "loss_smooth", color=colour, label=label or "training, smoothed")
        style = {"marker": "o", "markersize": 3} if "val_loss" in table and len(table["val_loss"][0]) < 30 else {}
        _line(panels[1], table, "val_loss", color=colour, label=label, **style)
        for quarter in range(QUARTERS):
            shade = 1 - 0.22 * quarter
            text = f"{label} {'least' if quarter == 0 else 'most'} noise" if quarter in (0, QUARTERS - 1) else ""
            _line(panels[2], table, f"loss_quarter_{quarter + 1}", color=colour, alpha=shade, label=text.strip())
        _line(panels[3], table, "lr", color=colour, label=label or "U-Net")
        _line(panels[3], table, "lr_projection", color=colour, linestyle=":", label=(label and "") or "cc_projection")
        _line(panels[4], table, "grad_norm", color=colour, label=label)
        _line(panels[5], table, "images_per_second", color=colour, label=label)
    titles = ("loss", "validation loss", "loss by timestep", "learning rate", "norm of the gradient", "images/s")
    for axes, title in zip(panels, titles, strict=True):
        _finish(axes, title, logarithmic="loss" in title or "norm" in title)
    contents = io.BytesIO()
    metadata = {"Software" if output.suffix == ".png" else "Creator": mark(COMMAND)}
    figure.savefig(contents, format=output.suffix[1:], dpi=DPI, metadata=metadata)
    write_atomically(str(output), contents.getvalue())
    print(f"curves: {output}")


def is_plot(edges: bytes) -> bool:
    """Return whether a file is a figure of this command: by its mark, or in earlier versions by its size."""
    pixels = struct.pack(">II", *(side * DPI for side in SIZE_IN))  # bytes 16 to 24 of a PNG
    return is_marked(COMMAND)(edges) or (edges[16:24] == pixels and b"Matplotlib" in edges)


def read_metrics(folder: Path, option: str = "runs") -> Table:
    """Read the numeric columns of the `metrics.csv` in the folder of a run, the value of `option`.

    Raises:
        UserError: The file is missing, damaged or empty.
    """
    try:
        with (folder / "metrics.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise UserError(f"{option}={folder}: no metrics.csv; use the folder of a training.finetune run") from None
    except (ValueError, csv.Error) as error:
        raise UserError(f"{option}={folder}: metrics.csv is damaged ({error!r}); use another run") from error
    try:
        table: Table = {
            column: (
                [int(row["step"]) for row in rows if row[column]],
                [float(row[column]) for row in rows if row[column]],
            )
            for column in (rows[0] if rows else ())
        }
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{option}={folder}: metrics.csv is damaged ({error!r}); use another run") from error
    if not table.get("loss", ([], []))[0]:
        raise UserError(f"{option}={folder}: metrics.csv has no row yet; wait for the first steps")
    return table


def _line(axes: Axes, table: Table, column: str, **style: object) -> None:
    steps, values = table.get(column, ([], []))
    if steps:
        axes.plot(steps, values, **{"linewidth": 1.3, **style})  # type: ignore[arg-type]


def _finish(axes: Axes, title: str, logarithmic: bool) -> None:
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xlabel("step", fontsize=9)
    if logarithmic and axes.lines and all(np.min(line.get_ydata()) > 0 for line in axes.lines):
        axes.set_yscale("log")
    axes.grid(alpha=0.25, which="both")
    axes.spines[["top", "right"]].set_visible(False)
    if any(not line.get_label().startswith("_") and line.get_label() for line in axes.lines):  # type: ignore[attr-defined]
        axes.legend(frameon=False, fontsize=8)
