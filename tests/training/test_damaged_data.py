"""Training on shards of which some are missing or damaged."""

import pytest

from conf.options import UserError
from pipeline.shards import ObjectRecord, write_shard
from tests.support.command import command
from tests.support.dots import sample_of_dots, write_dots
from tests.support.finetune import train
from tests.support.small_run import SMALL, rows
from training.data.sources import read_sources
from training.data.split import split
from training.model.checkpoints import checkpoint


def test_damage_is_named_and_counted(tmp_path, caplog):
    write_dots(tmp_path / "data", objects=8)
    (tmp_path / "data/views-000001.tar").unlink()
    words = ["trainer.max_steps=6", "data.max_bad_rate=0.9"]
    assert train(tmp_path / "data", tmp_path / "run", *words) == 0
    assert "views-000001.tar is damaged" in caplog.text and "dropped dots-004" in caplog.text
    assert 1 <= int([row for row in rows(tmp_path / "run") if row["loss"]][-1]["dropped"]) <= 4


def test_a_run_whose_only_held_out_object_cannot_be_read_goes_on_without_validation(tmp_path, caplog):
    uids = write_dots(tmp_path / "data", objects=12, per_shard=12)
    held_out = split(read_sources(str(tmp_path / "data"), "views"), 0.01).validation[0].uids
    samples = [
        (uid, sample_of_dots(i) | ({"cameras.npy": b""} if uid in held_out else {})) for i, uid in enumerate(uids)
    ]
    write_shard(str(tmp_path / "data"), "views-000000", samples, [ObjectRecord(uid, "ok") for uid in uids])
    words = ["trainer.max_steps=6", "data.validation_fraction=0.01"]
    assert train(tmp_path / "data", tmp_path / "run", *words) == 0
    assert f"dropped {held_out[0]}: " in caplog.text
    assert len(rows(tmp_path / "run")) == 3 and not any(row["val_loss"] for row in rows(tmp_path / "run"))
    assert (tmp_path / "run/samples/000006.png").exists() and not (tmp_path / "run/best").exists()
    assert checkpoint.load(tmp_path / "run/model").resolution == 16
    with pytest.raises(UserError, match="1 of 1 validation objects"):
        train(tmp_path / "data", tmp_path / "strict", *words, "data.max_bad_rate=0")


def test_too_much_damage_is_one_sentence_and_exit_code_two(tmp_path):
    """Loader workers find the errors; torch would print their tracebacks."""
    write_dots(tmp_path / "data", objects=8)
    (tmp_path / "data/views-000000.tar").unlink()
    words = [*SMALL, "data.workers=2", "data.max_bad_rate=0.3", "trainer.max_steps=50", "sample.rows=1"]
    words += ["data.validation_fraction=0", "wandb.mode=disabled"]
    done = command("training.finetune", f"data.path={tmp_path / 'data'}", f"output={tmp_path / 'run'}", *words)
    assert done.returncode == 2
    error = [line for line in done.stderr.splitlines() if not line.startswith("WARNING rank 0: ")]
    assert len(error) == 1 and error[0].startswith("error: data.max_bad_rate=0.3: 3 of 8"), done.stderr
