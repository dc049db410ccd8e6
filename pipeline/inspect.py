"""Write a contact sheet of every object as one self-contained HTML page.

python -m pipeline.inspect path=outputs/views
python -m pipeline.inspect path=s3://bucket/views output=sheet.html limit=50
"""

import json
from tarfile import TarError

from tqdm import tqdm

from conf.command import run
from conf.options import UserError
from pipeline.config import InspectConfig
from pipeline.html import contact_sheet, is_page, page, table
from pipeline.output import require_own_file
from pipeline.shards import ObjectRecord, Sample, ShardManifest, read_manifests, read_samples, view_names
from pipeline.storage import write_atomically

COMMAND = "pipeline.inspect"
EARLIER = b"<title>Views in "  # identifies pages written before marks were introduced


def main(config: InspectConfig) -> None:
    """Write the contact sheets of the shards at `config.path` to one HTML page.

    Raises:
        UserError: A shard is damaged, or the output is a file that this command did not write.
    """
    markers = read_manifests(config.path, "views")
    output = config.output or f"{config.path}/index.html"
    require_own_file(output, is_page(COMMAND, EARLIER))
    write_atomically(output, page(f"Views in {config.path}", _body(config, markers), COMMAND))
    print(f"contact sheet: {output}")


def _body(config: InspectConfig, markers: list[ShardManifest]) -> str:
    records = {record.uid: record for marker in markers for record in marker.records}
    failed = [record for record in records.values() if record.status == "failed"]
    shown = min(config.limit, len(records) - len(failed))
    summary = (
        f"<h1>Views</h1><p class='soft'>{len(records) - len(failed)} objects in {len(markers)} shards, "
        f"{len(failed)} failed; the first {shown} are shown.</p>"
    )
    sheets: list[str] = []
    with tqdm(total=shown, desc="reading", unit=" objects") as bar:
        for marker in markers:
            if len(sheets) >= shown:
                break
            try:
                for uid, sample in read_samples(config.path, marker.name):
                    if len(sheets) < shown:
                        sheets.append(_sheet(uid, sample, records[uid]))
                        bar.update()
            except (OSError, ValueError, KeyError, TarError) as error:
                raise UserError(
                    f"shard {marker.name} is damaged ({error!r}); see python -m pipeline.verify path={config.path}"
                ) from error
    failures = table(["object", "reason", "detail"], [(r.uid, r.reason, r.detail) for r in failed])
    return summary + "".join(sheets) + (f"<h2>Without views</h2>{failures}" if failed else "")


def _sheet(uid: str, sample: Sample, record: ObjectRecord) -> str:
    meta = json.loads(sample["meta.json"])
    facts = [meta["source"], meta["license"], f"{meta['resolution']}²", f"{record.seconds:.1f} s", *record.verdicts]
    return contact_sheet([sample[name] for name in view_names(sample)], uid, " · ".join(filter(None, facts)))


def command() -> None:
    """Run the command line."""
    run(main, InspectConfig, "pipeline", "inspect", help=__doc__)


if __name__ == "__main__":
    command()
