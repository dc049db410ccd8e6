"""Sweeps of --multirun: several jobs of one command, each with its own output."""

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hydra.core.override_parser.types import Quote, QuotedString

from conf.options import UserError


@contextmanager
def sweep_folder() -> Iterator[None]:
    """Name a temporary folder for the records of a sweep in `sys.argv`; a folder that is given there outranks it."""
    with tempfile.TemporaryDirectory() as folder:
        words = sys.argv[1:]
        # The words of Hydra's options stand together, and the last one for an option counts.
        first = next((i for i, word in enumerate(words) if "=" in word and not word.startswith("-")), len(words))
        words.insert(first, f"hydra.sweep.dir={QuotedString(folder, Quote.single).with_quotes()}")
        sys.argv[1:] = words
        yield


def output_of(job: Any) -> tuple[str, str]:
    """Return the option that names what a command writes, and its value, empty without one.

    Args:
        job: The options of the command.
    """
    name = "output" if hasattr(job, "output") else "target"
    return name, str(getattr(job, name, None) or "")


def require_own_outputs(jobs: Sequence[Any]) -> None:
    """Raise `UserError` if two jobs, each given by its options, would write to one place."""
    places = set[str]()
    for name, output in map(output_of, jobs):
        place = os.path.abspath(output)
        if output and place in places:
            raise UserError(
                f"{name}={output}: several jobs of --multirun would write there; put the swept option or "
                f"${{hydra:job.num}} into it, such as '{name}=outputs/${{hydra:job.num}}'"
            )
        places.add(place)
