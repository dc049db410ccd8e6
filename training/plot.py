"""Plot the curves of one or several runs from their metrics.csv.

    python -m training.plot runs=outputs/run
    python -m training.plot runs=outputs/run,outputs/other output=outputs/curves.svg

Shows the loss (smoothed, and of the averaged weights on validation objects), the loss by quarter of the timesteps, the
learning rates, the norm of the gradient and the images per second. It works during training, and without W&B.
"""

from conf.command import run
from training.config import PlotConfig


def main(config: PlotConfig) -> None:
    """Run the command."""
    from training.curves import plot

    plot(config)


def command() -> None:
    """Run the command line."""
    run(main, PlotConfig, "training", "plot", help=__doc__)


if __name__ == "__main__":
    command()
