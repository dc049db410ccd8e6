"""Write a contact sheet of every object as one self-contained HTML page.

python -m pipeline.inspect path=outputs/views
python -m pipeline.inspect path=s3://bucket/views output=sheet.html limit=50
"""

import json

from tqdm import tqdm

from conf.command import run
from pipeline.config import InspectConfig
from pipeline.html import is_page, page, table, views_figure
from pipeline.output import require_own_file
from pipeline.samples import DamagedShard, Sample, read_samples, view_names
from pipeline.shards import ObjectRecord, ShardManifest, read_manifests
from pipeline.storage import write_atomically

COMMAND = "pipeline.inspect"
EARLIER = b"<title>Views in "  # identifies pages written before marks were introduced


def main(config: InspectConfig) -> None:
    """Write the contact sheets of the shards at `config.path` to one HTML page.

    Raises:
        UserError: A shard is damaged, or this command did not write the existing output file.
    """
    manifests = read_manifests(config.path, "views")
    output = config.output or f"{config.path}/index.html"
    require_own_file(output, is_page(COMMAND, EARLIER))
    write_atomically(output, page(f"Views in {config.path}", _body(config, manifests), COMMAND))
    print(f"contact sheet: {output}")


def _body(config: InspectConfig, manifests: list[ShardManifest]) -> str:
    outcomes = [record for manifest in manifests for record in manifest.records]
    failed = [record for record in outcomes if record.status == "failed"]
    records = {record.uid: record for record in outcomes if record.status == "ok"}
    shown = min(config.limit, len(records))
    summary = (
        f"<h1>Views</h1><p class='soft'>{len(records)} objects in {len(manifests)} shards, "
        f"{len(failed)} failed; the first {shown} are shown.</p>"
    )
    figures: list[str] = []
    with tqdm(total=shown, desc="reading", unit=" objects") as bar:
        for manifest in manifests:
            if len(figures) >= shown:
                break
            for uid, sample in read_samples(config.path, manifest.name):
                if len(figures) == shown:
                    break
                try:
                    figures.append(_figure(uid, sample, records[uid]))
                except (ValueError, KeyError) as error:
                    raise DamagedShard(config.path, manifest.name, f"object {uid}: {error!r}") from error
                bar.update()
    failures = table(["object", "reason", "detail"], [(r.uid, r.reason, r.detail) for r in failed])
    return summary + "".join(figures) + (f"<h2>Without views</h2>{failures}" if failed else "")


def _figure(uid: str, sample: Sample, record: ObjectRecord) -> str:
    meta = json.loads(sample["meta.json"])
    facts = [meta["source"], meta["license"], f"{meta['resolution']}²", f"{record.seconds:.1f} s", *record.verdicts]
    return views_figure([sample[name] for name in view_names(sample)], uid, " · ".join(filter(None, facts)))


def command() -> None:
    """Run the command line."""
    run(main, InspectConfig, "pipeline", "inspect", help=__doc__)


if __name__ == "__main__":
    command()
