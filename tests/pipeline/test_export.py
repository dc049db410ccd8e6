"""Export of shards to the layout of the released renders."""

import io
import json
import os

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from conf.options import UserError
from tests.support.command import command
from tests.support.released import (
    UIDS,
    export,
    pack,
    pictures,
    tars,
)


def test_an_export_is_readable_like_the_original_renders(shards, released, tmp_path):
    """Read like the dataset of the original: a list of folders, pictures in [0, 1] by matplotlib, cameras `[3, 4]`."""
    output = tmp_path / "views_release"
    done = command("pipeline.export", f"path={shards}", f"output={output}")
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == f"views of 5 objects in {output}"
    uids = json.loads((output / "valid_paths.json").read_text())
    assert uids == UIDS
    for seed, uid in enumerate(uids):
        assert sorted(os.listdir(output / uid)) == sorted(released[uid])
        for view in range(3):
            picture = plt.imread(output / uid / f"{view:03d}.png")
            assert picture.shape == (16, 16, 4) and picture.dtype == np.float32
            np.testing.assert_array_equal(np.rint(picture * 255), pictures(seed)[view])
            camera = np.load(output / uid / f"{view:03d}.npy")
            np.testing.assert_array_equal(camera, np.load(io.BytesIO(released[uid][f"{view:03d}.npy"])))
            centre = -camera[:3, :3].T @ camera[:, -1]
            assert 1.5 <= np.linalg.norm(centre) <= 2.2
    # Packed again, the samples are unchanged.
    pack(output, tmp_path / "again", objects_per_shard=2)
    assert tars(tmp_path / "again") == tars(shards)


def test_an_export_resumes_and_contains_complete_objects_only(shards, tmp_path):
    output = tmp_path / "out"
    export(shards, output)
    whole = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    first = (output / UIDS[0] / "000.png").stat().st_mtime_ns
    for uid in UIDS[1:]:  # as after a kill: one partial object, others missing, no list
        (output / uid).rename(output / f"{uid}.part")
    (output / f"{UIDS[1]}.part" / "000.npy").unlink()
    (output / "valid_paths.json").unlink()
    export(shards, output)
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == whole
    assert (output / UIDS[0] / "000.png").stat().st_mtime_ns == first


def test_an_export_refuses_foreign_files_and_damaged_shards(shards, folder, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/photo.jpg").write_bytes(b"mine")
    with pytest.raises(UserError, match="no such folder"):
        export(tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(UserError, match="^output=s3://bucket/views: "):
        export(shards, "s3://bucket/views")
    with pytest.raises(UserError, match="output=.*photo.jpg"):
        export(shards, tmp_path / "full")
    export(shards, tmp_path / "out")
    pack(folder, tmp_path / "eights", objects_per_shard=2, resolution=8)
    with pytest.raises(UserError, match="other shards"):
        export(tmp_path / "eights", tmp_path / "out")
    assert Image.open(tmp_path / "out" / UIDS[0] / "000.png").size == (16, 16)
    tar = tmp_path / "eights/views-000001.tar"
    tar.write_bytes(tar.read_bytes()[:1500])
    with pytest.raises(UserError, match="damaged"):
        export(tmp_path / "eights", tmp_path / "damaged")
    assert not (tmp_path / "damaged/valid_paths.json").exists()
