"""Serve a web page that samples novel views of the object in a picture.

    python -m inference.demo sampling.guidance=2
    python -m inference.demo checkpoint=outputs/run/model
    python -m inference.demo checkpoint=105000.ckpt port=0 sampling.sampler=dpm_solver sampling.steps=20
    python -m inference.demo checkpoint=outputs/run/model host=0.0.0.0 port=8000

Upload a picture and drag a camera around it: a preview appears first, then the view; a new request cancels the one
before. Views, films of an orbit and contact sheets can be downloaded.
The page is served to this machine alone unless `host` is given. It loads nothing from other servers, needs no account,
and keeps visitors' pictures in a temporary folder for about an hour. Ctrl-C stops it and removes them.
The last line printed is the address.
"""

from conf.command import run
from inference.config import DemoConfig


def main(config: DemoConfig) -> int:
    """Load the checkpoint and serve the page until Ctrl-C; return the exit code."""
    from inference.web.server import free_port, load_and_serve

    load_and_serve(config, free_port(config.host, config.port))
    return 0


def command() -> None:
    """Run the command line."""
    run(main, DemoConfig, "inference", "demo", help=__doc__)


if __name__ == "__main__":
    command()
