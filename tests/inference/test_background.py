"""Removal of the background by alpha, by white, and by segmentation models with hand-computed outputs."""

import os
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from conf.options import UserError
from inference.preprocess.background import remove_background, remove_spill
from inference.preprocess.photograph import read_photograph
from tests.support.command import PROJECT, command

SHARED = Path(__file__).parents[3] / "shared"


def alpha_of(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture.getchannel("A")) / 255


def disc(side: int, radius: float) -> np.ndarray:
    """Return the share of each pixel that a disc in the middle covers, from 8 × 8 samples."""
    steps = (np.arange(side * 8) + 0.5) / 8 - side / 2
    inside = steps[:, None] ** 2 + steps[None] ** 2 < radius**2
    return inside.reshape(side, 8, side, 8).mean(axis=(1, 3))


def mixed(front, back, share_HW) -> Image.Image:
    share = share_HW[..., None]
    return Image.fromarray((np.array(front) * share + np.array(back) * (1 - share)).round().astype(np.uint8))


# A protocol buffer's fields by hand (github.com/onnx/onnx, onnx.proto): the package onnx is not needed for three nodes.


def varint(number: int) -> bytes:
    more, low = number >> 7, number & 127
    return bytes([low | 128]) + varint(more) if more else bytes([low])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def part(field: int, contents: bytes | str) -> bytes:
    contents = contents.encode() if isinstance(contents, str) else contents
    return varint(field << 3 | 2) + varint(len(contents)) + contents


def value(name: str, shape: tuple[int, ...]) -> bytes:
    dimensions = b"".join(part(1, number(1, size)) for size in shape)
    return part(1, name) + part(2, part(1, number(1, 1) + part(2, dimensions)))


def node(operator: str, inputs: list[str], output: str) -> bytes:
    return part(1, b"".join(part(1, name) for name in inputs) + part(2, output) + part(4, operator))


def model(path: Path, weights=(1.0, 0.0, 0.0), shape=(1, 3, 32, 32), operator="Relu", external="") -> Path:
    """operator(Σ weights · channels), `[1, C, H, W]` → `[1, 1, H, W]`."""
    held = part(9, struct.pack("<3f", *weights))
    if external:
        held = part(13, part(1, "location") + part(2, external)) + number(14, 1)
    tensor = b"".join(number(1, size) for size in (1, 3, 1, 1)) + number(2, 1) + part(8, "w") + held
    graph = node("Conv", ["x", "w"], "sum") + node(operator, ["sum"], "y") + part(2, "graph") + part(5, tensor)
    graph += part(11, value("x", shape)) + part(12, value("y", (1, 1, *shape[2:])))
    path.write_bytes(number(1, 8) + part(8, part(1, "") + number(2, 13)) + part(7, graph))
    return path


def bands(side: int, colours) -> Image.Image:
    """Return a square picture of vertical bands of colours."""
    pixels = np.repeat(np.uint8(colours)[None, np.arange(side) * len(colours) // side], side, axis=0)
    return Image.fromarray(pixels)


@pytest.mark.parametrize(("side", "middle"), [(32, 0.5146), (1024, 0.5)])
def test_mask_is_the_models_output_for_normalised_colours(tmp_path, side, middle):
    """Red is divided by the picture's largest value: 200, 150, 50 are 1, 0.75, 0.25.

    U²-Net: (1 - 0.485) / 0.229 = 2.2489, (0.75 - 0.485) / 0.229 = 1.1572, a negative one that Relu makes 0;
    1.1572 / 2.2489 = 0.5146. IS-Net: 0.5, 0.25, negative. From 0.1 to 0.9 is stretched to 0 to 1.
    """
    path = model(tmp_path / "m.onnx", shape=(1, 3, side, side))
    cut = remove_background(bands(side, [(200, 9, 9), (150, 9, 9), (50, 9, 9)]), str(path))
    alpha = alpha_of(cut)[side // 2]
    seen = alpha[[side // 6, side // 2, side * 5 // 6]]
    np.testing.assert_allclose(seen, [1, (middle - 0.1) / 0.8, 0], atol=0.004)


def test_channels_are_normalised_separately(tmp_path):
    # 0.4 / 0.229 = 1.7467 of red and 0.4 / 0.224 = 1.7857 of green: 0.9782 of the range above black, which is cut to 1.
    # 0.2 / 0.225 = 0.8889 of blue is 0.4978 of it.
    path = model(tmp_path / "m.onnx", weights=(1, 1, 1), operator="Identity")
    cut = remove_background(bands(32, [(0, 100, 0), (100, 0, 0), (0, 0, 50), (0, 0, 0)]), str(path))
    np.testing.assert_allclose(alpha_of(cut)[16, [4, 12, 20, 28]], [1, 1, (0.4978 - 0.1) / 0.8, 0], atol=0.004)


def test_the_mask_has_the_size_of_the_picture(tmp_path):
    photograph = bands(90, [(200, 0, 0), (20, 0, 0)]).crop((0, 0, 90, 40))
    cut = remove_background(photograph, str(model(tmp_path / "m.onnx")))
    assert cut.size == (90, 40)
    assert (alpha_of(cut)[:, :40] == 1).all() and (alpha_of(cut)[:, 50:] == 0).all()
    assert (np.asarray(cut)[:, :40, :3] == np.asarray(photograph)[:, :40]).all()


def test_empty_and_full_masks_are_refused(tmp_path):
    photograph = bands(64, [(200, 0, 0), (60, 90, 0)])
    with pytest.raises(UserError, match="shows no object"):
        remove_background(photograph, str(model(tmp_path / "nothing.onnx", weights=(0, 0, 0))))
    noisy = np.full((640, 640, 3), 180, np.uint8)
    noisy[0, 0] = 0
    with pytest.raises(UserError, match="shows no background"):
        remove_background(Image.fromarray(noisy), str(model(tmp_path / "all.onnx", shape=(1, 3, 640, 640))))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda path: path.write_bytes(b""), "is not a model that onnxruntime can run"),
        (lambda path: path.write_bytes(b"PK\3\4 no model" * 99), "is not a model that onnxruntime can run"),
        (lambda path: path.write_bytes(model(path).read_bytes()[:-20]), "is not a model that onnxruntime can run"),
        (lambda path: model(path, shape=(1, 3, 32, 16)), r"takes \[1, 3, 32, 16\]; give .* \[1, 3, S, S\]"),
        (lambda path: model(path, shape=(2, 3, 32, 32)), r"takes \[2, 3, 32, 32\]; give .* \[1, 3, S, S\]"),
        (lambda path: model(path, shape=(1, 3, 4096, 4096)), r"takes \[1, 3, 4096, 4096\]; give"),
        (lambda path: model(path, operator="Log"), "is not a mask"),
        (lambda path: model(path, external="weights.bin"), "keeps its weights in other files"),
        (lambda path: model(path, external="../weights.bin"), "keeps its weights in other files"),
        (lambda path: model(path, external="/etc/passwd"), "keeps its weights in other files"),
        (
            lambda path: path.with_suffix(".pt").touch(),
            "must be auto, u2netp, isnet, none or the path of an .onnx",
        ),
    ],
    ids=["empty", "zip", "cut", "oblong", "batch", "huge", "nan", "beside", "above", "absolute", "missing"],
)
def test_unsuitable_segmentation_models_are_refused(tmp_path, monkeypatch, make, sentence):
    (tmp_path / "weights.bin").write_bytes(struct.pack("<3f", 1, 0, 0))
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "m.onnx")
    with pytest.raises(UserError, match=sentence) as refused:
        remove_background(bands(64, [(200, 0, 0), (60, 90, 0)]), str(tmp_path / "m.onnx"))
    assert "\n" not in str(refused.value)


def test_auto_keeps_only_an_alpha_that_outlines_an_object(tmp_path):
    cut = mixed((200, 30, 30), (9, 9, 9), disc(60, 20))
    cut.putalpha(Image.fromarray((disc(60, 20) * 254).astype(np.uint8)))
    assert remove_background(cut, "auto").tobytes() == cut.tobytes()
    # The whole picture is half transparent, so that its colours on white decide: a disc on white.
    ghost = mixed((200, 30, 30), (255, 255, 255), disc(60, 20))
    ghost.putalpha(200)
    assert (abs(alpha_of(remove_background(ghost, "auto")) - disc(60, 20)) < 0.1).all()


def test_a_white_background_is_removed_without_a_model():
    share = disc(100, 35) * (1 - disc(100, 10))  # a ring with white within
    share[5:7, 5:7] = 1  # and a speck of dust
    photograph = mixed((40, 90, 160), (255, 255, 255), share)
    cut = remove_background(photograph, "auto")
    alpha, expected = alpha_of(cut), disc(100, 35)
    assert (alpha[:15, :15] == 0).all()
    assert abs(alpha - expected).max() < 0.1 and (alpha[45:55, 45:55] == 1).all()
    on_white = Image.alpha_composite(Image.new("RGBA", cut.size, "white"), cut).convert("RGB")
    difference = np.abs(np.asarray(on_white, int) - np.asarray(photograph, int))
    difference[5:7, 5:7] = 0
    white = np.asarray(photograph).min(axis=2) >= 255 - 12
    assert difference[~white].max() <= 2 and difference[white].max() <= 12


def test_the_outline_gets_the_colours_of_the_object():
    share = disc(120, 40)
    photograph = np.asarray(mixed((200, 40, 30), (30, 200, 60), share))
    on_white = np.asarray(mixed((200, 40, 30), (255, 255, 255), share), float)
    alpha = share.astype(np.float32)[..., None]
    seen = remove_spill(photograph, alpha[..., 0]) * alpha + 255 * (1 - alpha)
    left = photograph * alpha + 255 * (1 - alpha)
    outline = (share > 0) & (share < 1)
    assert abs(seen - on_white)[outline].mean() < 0.5 * abs(left - on_white)[outline].mean()
    assert abs(seen - on_white)[share == 1].max() < 1


def named_model(folder, picture, tmp_path, **env):
    unreachable = {"HTTPS_PROXY": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    return command(
        "inference.sample", f"checkpoint={folder}", f"image={picture}", f"output={tmp_path / 'out'}", "orbit=2",
        "cutout=u2netp", "elevation=0", "sampling.steps=2", XDG_CACHE_HOME=str(tmp_path / "cache"), **unreachable | env,
    )  # fmt: skip


@pytest.mark.parametrize("there", [False, True], ids=["nothing", "another file"])
def test_a_model_that_cannot_be_downloaded_is_named_with_alternatives(folder, picture, tmp_path, there):
    kept = tmp_path / "cache/zero-1-to-3/u2netp.onnx"
    if there:
        kept.parent.mkdir(parents=True)
        model(kept)  # another model under that name
    done = named_model(folder, picture, tmp_path)
    assert done.returncode == 2
    sentence = done.stderr.splitlines()[-1]
    assert sentence.startswith("error: cutout=u2netp: the model cannot be downloaded")
    for word in ("releases/download/v0.0.0/u2netp.onnx", f"at {kept}", "cutout=<path>.onnx", "cutout=none"):
        assert word in sentence
    assert not (tmp_path / "out").exists()


def test_an_unreachable_server_is_asked_once_per_folder(folder, tmp_path):
    (tmp_path / "pictures").mkdir()
    for name in ("a.png", "b.png", "c.png"):
        Image.effect_noise((40, 40), 90).save(tmp_path / "pictures" / name)
    requests = []

    def listen(server):
        while True:
            try:
                line, _ = server.accept()
            except OSError:
                return
            requests.append(line.recv(9))
            line.close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=listen, args=(server,), daemon=True).start()
        proxy = f"http://127.0.0.1:{server.getsockname()[1]}"
        done = named_model(
            folder, tmp_path / "pictures", tmp_path, HTTPS_PROXY=proxy, https_proxy=proxy, NO_PROXY="", no_proxy=""
        )
    assert done.returncode == 1 and done.stderr.count("the model cannot be downloaded") == 3
    assert requests == [b"CONNECT g"]


@pytest.fixture(scope="module")
def u2netp() -> Path:
    path = SHARED / "weights/u2netp.onnx"
    if not path.is_file():
        pytest.skip(f"needs the model {path}")
    return path


def test_a_cached_model_is_used_offline(folder, picture, tmp_path, u2netp):
    kept = tmp_path / "cache/zero-1-to-3/u2netp.onnx"
    kept.parent.mkdir(parents=True)
    os.symlink(u2netp, kept)
    scene = Image.new("RGB", (320, 320), (90, 140, 110))
    ImageDraw.Draw(scene).ellipse((90, 90, 230, 230), fill=(220, 60, 30))
    scene.save(picture)
    done = named_model(folder, picture, tmp_path)
    assert done.returncode == 0, done.stderr
    shown = np.asarray(Image.open(tmp_path / "out/input.png"))
    assert (shown[0] == 255).all() and shown[8, 8, 0] > 180 > 100 > shown[8, 8, 1]


@pytest.mark.parametrize("name", ["two_donuts", "kettle", "yellowduck", "mona_lisa"])
def test_photographs_on_coloured_backgrounds_match_reference_masks(u2netp, name):
    (path,) = (SHARED / "images/wild").glob(f"*{name}*")
    truth = read_photograph(path)
    ground = Image.new("RGBA", truth.size, (150, 170, 140))
    ground.alpha_composite(truth)
    found, own = alpha_of(remove_background(ground, str(u2netp))) > 0.5, alpha_of(truth) > 0.5
    assert (found & own).sum() / (found | own).sum() > 0.95


def test_onnxruntime_sends_no_telemetry(tmp_path):
    """Telemetry would leave a file in the folder for temporary files, and a database in the cache."""
    script = "import sys; from inference.preprocess.background import segmenter; print(segmenter(sys.argv[1]).side)"
    home = {"HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "aside"), "XDG_CACHE_HOME": str(tmp_path / "home")}
    quiet = {name: value for name, value in os.environ.items() if name != "CI"}  # CI switches telemetry off too
    for folder in ("home", "aside"):
        (tmp_path / folder).mkdir()
    words = [sys.executable, "-c", script, model(tmp_path / "m.onnx")]
    assert subprocess.run(words, env=quiet | home, cwd=PROJECT, check=True, capture_output=True).stdout == b"32\n"
    assert not list((tmp_path / "aside").iterdir()) and not list((tmp_path / "home").rglob("*onnxruntime*"))
