"""Create the project's workspace on Weights & Biases: one section for rendering, one for training.

    python jobs/dashboard.py --entity my-team --project zero-1-to-3
    python jobs/dashboard.py --entity my-team --dry-run     # print what would be created; no account, no network

Rendering and training log there with `wandb.mode=online wandb.entity=my-team`. Each call creates a new saved view and
prints its address. Needs an API key (WANDB_API_KEY) and `pip install '.[dashboard]'`.
"""

import argparse
import json
import sys

from conf.tracking import WandbConfig
from rendering.failure import REASONS

OBJECTS = "objects"  # the step axis of a rendering
STEPS = "trainer/global_step"  # Lightning's
PHASES = ("fetch", "load", "render", "encode", "other")


def main() -> int:
    """Create the workspace, or print it; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entity", required=True, help="team or user")
    parser.add_argument("--project", default=WandbConfig().project, help="project (default: %(default)s)")
    parser.add_argument("--name", default="Zero-1-to-3", help="name of the view (default: %(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="print the view as JSON and create nothing")
    options = parser.parse_args()
    try:
        import wandb

        view = workspace(options.entity, options.project, options.name)
    except ImportError as error:
        return _refuse(f"{error.name} is not installed: pip install '.[dashboard]'")
    if options.dry_run:
        print(json.dumps(view._to_model().model_dump(mode="json", by_alias=True, exclude_none=True), indent=1))
        return 0
    if not wandb.login(prompt=False, verify=False):
        return _refuse("W&B needs an API key: set WANDB_API_KEY, or look at the view with --dry-run")
    try:
        view.save()
    except (wandb.errors.Error, OSError, ValueError) as error:
        return _refuse(f"W&B does not take the view for {options.entity}/{options.project}: {error}")
    print(f"workspace: {view.url}")
    return 0


def workspace(entity: str, project: str, name: str):
    """Return the workspace with its sections for rendering and training."""
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    def curve(title: str, *keys: str, over: str = OBJECTS, **more):
        return wr.LinePlot(title=title, x=over, y=list(keys), **more)

    rendering = [
        curve("Objects per second", "objects_per_second"),
        curve("Views per second", "views_per_second"),
        curve("Share of objects that failed", "failure_rate", range_y=(0, None)),
        curve("Failures by reason", *(f"failed/{reason}" for reason in REASONS), plot_type="stacked-area"),
        curve("Seconds per object, by phase", *(f"phase_seconds/{name}" for name in PHASES), plot_type="stacked-area"),
        wr.BarPlot(title="Share of the time, by phase", metrics=[f"phase_share/{name}" for name in PHASES]),
        curve("Utilisation, mean of the nodes", "utilisation", range_y=(0, 1)),
        wr.LinePlot(title="Utilisation of each node", x=OBJECTS, metric_regex="nodes/.*/utilisation", range_y=(0, 1)),
        curve("Bytes written", "bytes"),
        wr.ScalarChart(title="Objects", metric="objects", groupby_aggfunc="max"),
        wr.ScalarChart(title="Views", metric="views", groupby_aggfunc="max"),
        wr.MediaBrowser(title="Sample views", media_keys=["pictures"], num_columns=1),
    ]
    training = [
        curve("Loss", "loss", "loss_smooth", over=STEPS),
        curve("Loss by quarter of the timesteps", *(f"loss_quarter_{i}" for i in (1, 2, 3, 4)), over=STEPS),
        curve("Loss on held-out objects", "val_loss", over=STEPS),
        curve("Learning rates", "lr", "lr_projection", over=STEPS),
        curve("Norm of the gradient", "grad_norm", over=STEPS, log_y=True),
        curve("Images per second", "images_per_second", over=STEPS),
        curve("Model FLOPs utilisation", "mfu", over=STEPS, range_y=(0, 1)),
        curve("GPU memory, GB", "gpu_gigabytes", over=STEPS),
        curve("Objects dropped", "dropped", over=STEPS),
        wr.MediaBrowser(title="Input, truth, sample", media_keys=["input | truth | sample"], num_columns=1),
    ]
    sections = [
        ws.Section(name="Rendering", panels=rendering, is_open=True),
        ws.Section(name="Training", panels=training, is_open=True),
    ]
    return ws.Workspace(entity=entity, project=project, name=name, sections=sections)


def _refuse(sentence: str) -> int:
    print(f"error: {sentence}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
