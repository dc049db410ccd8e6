"""Show the progress of a rendering from the `progress.json` next to its shards.

    python -m pipeline.status path=outputs/views
    python -m pipeline.status path=s3://bucket/views watch=5

The command works on any machine that can read the output, during the rendering and afterwards. For a run that was
killed or has no progress.json, it shows the contents of the committed shards.
"""

import sys
import time
from datetime import timedelta

from conf.command import run
from pipeline.config import StatusConfig
from pipeline.progress import Progress, read

BAR = 24  # columns
NODES = 20  # maximum number of listed nodes; the others are summed in one line
CLEAR = "\x1b[H\x1b[J"  # ANSI: move the cursor to the top left and clear the screen


def main(config: StatusConfig) -> None:
    """Print the progress of the run at `config.path`, every `config.watch` seconds while it runs.

    Raises:
        UserError: The path is not the output of a rendering.
    """
    while True:
        now = time.time()
        progress = read(config.path, now)
        if config.watch and sys.stdout.isatty():
            print(CLEAR, end="")
        print("\n".join(lines(progress, config.path, now)), flush=True)
        if not config.watch or progress.state != "running":
            return
        time.sleep(config.watch)
        if not sys.stdout.isatty():
            print()


def lines(progress: Progress, path: str, now: float) -> list[str]:
    """Return the lines of the status report, at most 80 columns wide except for the path.

    Args:
        progress: Progress to report.
        path: Output of the run, as the user named it.
        now: Current time, in seconds since the epoch.
    """
    share = progress.done / progress.total if progress.total else 1.0
    counts = f"{progress.done:,} of {progress.total:,} objects"
    text = [f"{path}: {_state(progress, now)}", f"{_bar(share)} {share:4.0%}  {counts}{_left(progress)}", ""]
    if progress.state == "running" and progress.recent_objects_per_second:
        text.append(f"recent    {_pace(progress.recent_objects_per_second, progress.recent_views_per_second)}")
    if progress.objects_per_second:
        over = f"over {_time(progress.seconds)}"
        text.append(f"session   {_pace(progress.objects_per_second, progress.views_per_second)}, {over}")
    views = f"{progress.views:,} views of " if progress.views else ""
    text.append(f"written   {views}{progress.ok:,} objects, {_size(progress.bytes)}")
    if progress.failed:
        failed = sum(progress.failed.values())
        text += ["", f"failed    {failed:,} objects, {failed / progress.done:.1%}"]
        text += [f"  {name:<14.14}{count:>9,}  {_bar(count / failed)} {count / failed:4.0%}"
                 for name, count in progress.failed.items()]  # fmt: skip
    if progress.phases:
        text += ["", f"seconds   {sum(phase.seconds for phase in progress.phases.values()):.2f} per object"]
        text += [f"  {name:<14.14}{phase.seconds:>9.2f}  {_bar(phase.share)} {phase.share:4.0%}"
                 for name, phase in progress.phases.items()]  # fmt: skip
    if progress.nodes:
        text += ["", f"nodes     {len(progress.nodes)}"]
        busiest = sorted(progress.nodes.items(), key=lambda item: -item[1].objects)
        text += [f"  {name:<30.30}{node.objects:>9,} objects  busy {_bar(node.utilisation, 14)} {node.utilisation:4.0%}"
                 for name, node in busiest[:NODES]]  # fmt: skip
        if rest := busiest[NODES:]:
            text.append(f"  {f'and {len(rest)} others':<30}{sum(node.objects for _, node in rest):>9,} objects")
    if progress.wandb:
        text += ["", f"W&B run   {progress.wandb}"]
    return text


def _state(progress: Progress, now: float) -> str:
    since = _time(max(0.0, now - (progress.updated or now)))  # clocks of two machines differ
    ago = "" if progress.updated is None else f" {since} ago"
    return {
        "running": "running",
        "finished": f"finished{ago}",
        "stopped": f"stopped{ago}; repeat the command to resume",
        "stale": f"no progress for {since}: killed or cut off; repeat the command to resume",
    }[progress.state]


def _left(progress: Progress) -> str:
    if progress.state != "running" or progress.seconds_left is None:
        return ""
    return f", {_time(progress.seconds_left)} left"


def _pace(objects: float, views: float) -> str:
    return f"{objects:.2f} objects/s, {views:.1f} views/s"


def _bar(share: float, width: int = BAR) -> str:
    return "#" * round(share * width) + "." * (width - round(share * width))


def _time(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def _size(size: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.4g} TB"


def command() -> None:
    """Run the command line."""
    run(main, StatusConfig, "pipeline", "status", help=__doc__)


if __name__ == "__main__":
    command()
