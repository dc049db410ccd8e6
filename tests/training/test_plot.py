import pytest
from PIL import Image

from conf.options import UserError
from tests.support.command import command
from training.config import PlotConfig
from training.curves import read_metrics
from training.plot import main

HEAD = (
    "step,seconds,loss,loss_smooth,loss_quarter_1,loss_quarter_4,val_loss,lr,lr_projection,grad_norm,images_per_second"
)


def write(folder, *lines: str) -> str:
    folder.mkdir()
    (folder / "metrics.csv").write_text("\n".join([HEAD, *lines]) + "\n")
    return str(folder)


def test_each_column_has_its_own_steps(tmp_path):
    run = write(
        tmp_path / "run", "10,1,0.5,0.5,0.9,0.1,,1e-4,1e-3,2,30", "10,,,,,,0.7,,,,", "20,2,0.4,0.49,,0.1,,,,,31"
    )
    table = read_metrics(tmp_path / "run")
    assert table["loss"] == ([10, 20], [0.5, 0.4]) and table["val_loss"] == ([10], [0.7])
    assert table["loss_quarter_1"] == ([10], [0.9])
    done = command("training.plot", f"runs={run}")
    assert (done.returncode, done.stdout) == (0, f"curves: {run}/curves.png\n"), done.stderr
    with Image.open(tmp_path / "run/curves.png") as picture:
        assert picture.width > 1000 and len(picture.convert("RGB").getcolors(2**24) or ()) > 20


def test_curves_are_labelled_by_run(tmp_path):
    runs = [write(tmp_path / name, "1,1,0.5,0.5,,,0.4,1e-4,1e-3,2,30") for name in ("first", "second")]
    main(PlotConfig(runs=runs, output=str(tmp_path / "new/both.svg")))
    assert (tmp_path / "new/both.svg").read_text().count("<!-- second -->") >= 3


def test_runs_of_one_name_are_labelled_by_their_paths(tmp_path):
    folders = [tmp_path / name for name in ("first", "second")]
    for folder in folders:
        folder.mkdir()
    runs = [write(folder / "run", "1,1,0.5,0.5,,,0.4,1e-4,1e-3,2,30") for folder in folders]
    main(PlotConfig(runs=runs, output=str(tmp_path / "both.svg")))
    curves = (tmp_path / "both.svg").read_text()
    assert all(f"<!-- {run} -->" in curves for run in runs)


def test_a_table_may_lack_columns(tmp_path):
    (tmp_path / "metrics.csv").write_text("step,loss\n1,0.5\n2,0.4\n")
    main(PlotConfig(runs=[str(tmp_path)]))
    assert (tmp_path / "curves.png").exists()


def test_invalid_options_are_refused_with_one_sentence(tmp_path):
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd/metrics.csv").write_text("step,loss\n1,what\n")
    (tmp_path / "binary").mkdir()
    (tmp_path / "binary/metrics.csv").write_bytes(b"\xff\xfe")
    for config, sentence in [
        (PlotConfig(), "^runs: "),
        (PlotConfig(runs=["nowhere"]), "^runs=nowhere: .*metrics.csv"),
        (PlotConfig(runs=[write(tmp_path / "new")]), "^runs=.*new: "),
        (PlotConfig(runs=[str(tmp_path / "odd")]), "metrics.csv is damaged"),
        (PlotConfig(runs=[str(tmp_path / "binary")]), "metrics.csv is damaged"),
        (PlotConfig(runs=["x"], output="x.exe"), "^output=x.exe: .*.png, .svg, .pdf"),
    ]:
        with pytest.raises(UserError, match=sentence):
            main(config)
