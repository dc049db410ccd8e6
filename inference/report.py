"""Write an HTML page about a training run: views of held-out objects beside the truth, loss curves, all objects.

    python -m inference.report views=outputs/views run=outputs/run output=outputs/report.html

    python -m inference.report views=outputs/views run=outputs/run start=models/small orbits=4 'pictures=[chair.png]'

Views are sampled of objects that were held out of training; with `start`, views of the checkpoint that the run started
from stand beside them. Orbits show objects and pictures from all sides. The page contains its pictures.
"""

from conf.command import run
from inference.config import ReportConfig


def main(config: ReportConfig) -> None:
    """Sample and score views of held-out objects, and write the report."""
    from inference.run_report.page import write_report

    write_report(config)


def command() -> None:
    """Run the command line."""
    run(main, ReportConfig, "inference", "report", help=__doc__)


if __name__ == "__main__":
    command()
