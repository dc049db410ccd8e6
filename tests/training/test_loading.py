"""The loading benchmark reads equal pictures from every source."""

import numpy as np
import pytest
import torch

from conf.options import UserError
from pipeline.config import ExportConfig
from pipeline.export import main as export
from pipeline.samples import npy_array, read_samples
from rendering.cameras import relative_pose
from tests.support.dots import write_dots
from training.config import LoadingConfig
from training.data.loading_speed import Original
from training.loading import main
from training.model.picture import Background, decode


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Four objects as view shards and as the folders of the original."""
    root = tmp_path_factory.mktemp("loading")
    write_dots(root / "views", objects=4, per_shard=2)
    export(ExportConfig(str(root / "views"), str(root / "png"), workers=1))
    return root


def test_original_reader_returns_the_views_of_the_shards(folders):
    pairs = Original(folders / "png", resolution=32)
    assert len(pairs) == 4 and pairs.views == 4
    _, sample = next(read_samples(str(folders / "views"), "views-000000"))
    views = [decode(sample[f"{i:03d}.webp"], 32, Background.original).astype(int) for i in range(4)]
    cameras = npy_array(sample["cameras.npy"])
    pair = pairs[0]
    found = []
    for part in ("image_target", "image_cond"):
        assert pair[part].dtype is torch.float32
        seen = (pair[part].numpy() + 1) * 127.5
        found.append(next(i for i, view in enumerate(views) if np.abs(view - seen).max() <= 1))
    assert found[0] != found[1]
    assert pair["T"].tolist() == pytest.approx(relative_pose(cameras[found[0]], cameras[found[1]]))


def test_sources_are_compared_in_one_table(folders, capsys):
    threads = torch.get_num_threads()
    words = LoadingConfig(original=str(folders / "png"), views=str(folders / "views"), resolution=32, batch_size=4)
    assert main(LoadingConfig(**{**vars(words), "seconds": 0.02})) == 0
    torch.set_num_threads(threads)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| PNG, as in the original", "| views shards"]
    assert lines[2].endswith("| 1.0× |")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({}, "original"),
        ({"original": "docs"}, "^original=docs: "),
        ({"original": "nowhere"}, "^original=nowhere: "),
        ({"seconds": 0}, "^seconds=0: .*0.01"),
    ],
)
def test_invalid_options_are_refused_with_one_sentence(words, sentence):
    with pytest.raises(UserError, match=sentence):
        main(LoadingConfig(**words))
