"""The web page in a browser, served by the command."""

import base64
import io
import json
import re
import signal
import socket
from pathlib import Path
from urllib.parse import quote, urlsplit

import av
import httpx
import numpy as np
import pytest
from PIL import Image, ImageDraw

from inference.meshes.read_mesh import read_mesh
from inference.reconstruction.surface.simplification import check_surface
from tests.support.command import PROJECT, command
from tests.support.web_page import CHROMIUM, TIMEOUT_MS, browser, open_page, serve, turn, upload, view_after

pytest.importorskip("playwright")
STEPS = 12


@pytest.fixture(scope="module")
def temporary_folder(tmp_path_factory):
    """Folder for temporary files of the server."""
    return tmp_path_factory.mktemp("temporary_folder")


@pytest.fixture(scope="module")
def serving(folder, temporary_folder):
    process, url = serve(
        f"checkpoint={folder}", f"sampling.steps={STEPS}", "preview_steps=3", "max_steps=50", "max_megabytes=1",
        "cutout=none", TMPDIR=str(temporary_folder),
    )  # fmt: skip
    yield process, url
    process.kill()
    process.communicate()


@pytest.fixture(scope="module")
def server(serving):
    return serving[1]


@pytest.fixture(scope="module")
def chromium():
    if not CHROMIUM:
        pytest.skip("needs Debian's chromium: apt install chromium")
    with browser() as chromium:
        yield chromium


@pytest.fixture(scope="module")
def tab(chromium, server):
    """The page with "More" open, and the addresses of all its requests."""
    page = chromium.new_page(viewport={"width": 1280, "height": 1000}, accept_downloads=True)
    page.set_default_timeout(TIMEOUT_MS)
    page.requests = []
    page.on("request", lambda request: page.requests.append(request.url))
    page.goto(server)
    page.wait_for_selector("#camera-control .target")
    page.locator("#more").get_by_text("More").click()  # long before anything is typed there
    return page


@pytest.fixture
def page(tab, picture):
    """The page with a picture and its first view, the camera at its initial turn."""
    if not tab.locator("#view .final").count():
        upload(tab, picture)
    turn(tab, 0, 45, 0)
    return tab


def slider_values(page):
    return [
        float(page.locator(f"#camera-control input[name={name}]").input_value())
        for name in ("polar", "azimuth", "radius")
    ]


def box_picture(folder):
    """Write a picture of a box: three sides in shades of red, on white."""
    picture = Image.new("RGB", (64, 64), "white")
    draw = ImageDraw.Draw(picture)
    draw.polygon([(14, 24), (32, 32), (32, 54), (14, 46)], fill=(200, 40, 40))
    draw.polygon([(50, 24), (32, 32), (32, 54), (50, 46)], fill=(120, 20, 20))
    draw.polygon([(14, 24), (32, 16), (50, 24), (32, 32)], fill=(240, 110, 100))
    picture.save(folder / "box.png")
    return folder / "box.png"


def enter(page, label, number):
    """Type a number beside a slider; again if gradio, still building the slider, lost it."""
    box, slider = (page.get_by_label(f"{kind} for {label}") for kind in ("number input", "range slider"))
    slider.wait_for()
    for _ in range(50):
        box.fill(str(number))
        box.press("Tab")
        page.wait_for_timeout(20)
        if slider.input_value() == box.input_value() == str(number):
            return
    raise AssertionError(f"{label} does not take {number}")


@pytest.mark.parametrize(("place", "pose"), [("behind", [0, 180, 0]), ("above", [-60, 0, 0]), ("left", [0, -90, 0])])
def test_a_preset_shows_the_view_that_the_library_samples(page, picture, novel_view, place, pose):
    page.get_by_role("button", name=place, exact=True).click()
    seen = view_after(page, *pose)
    shown = novel_view.prepare(picture, "none")
    (drawn,) = novel_view(shown, [pose], steps=STEPS)
    np.testing.assert_array_equal(np.asarray(seen), np.asarray(drawn))
    assert f"{STEPS} steps of ddim, guidance 3, seed 0" in page.locator("#status").inner_text()


def test_the_last_of_several_quick_requests_is_shown(page, picture, novel_view):
    enter(page, "Steps", 50)  # so that the requests overlap
    page.get_by_text("50 steps of ddim").wait_for()
    for place in ("left", "right", "below", "behind"):
        page.get_by_role("button", name=place, exact=True).click()
    seen = view_after(page, 0, 180, 0)
    shown = novel_view.prepare(picture, "none")
    (drawn,) = novel_view(shown, [[0, 180, 0]], steps=50)
    np.testing.assert_array_equal(np.asarray(seen), np.asarray(drawn))
    enter(page, "Steps", STEPS)
    page.get_by_text(f"{STEPS} steps of ddim").wait_for()


def test_a_new_sample_has_the_next_seed(page, picture, novel_view):
    page.locator("#new-sample").click()
    page.get_by_text("seed 1").wait_for()
    shown = novel_view.prepare(picture, "none")
    (drawn,) = novel_view(shown, [[0, 45, 0]], steps=STEPS, seed=1)
    np.testing.assert_array_equal(np.asarray(view_after(page, 0, 45, 0)), np.asarray(drawn))
    page.get_by_label("Seed").fill("0")
    page.get_by_text("seed 0").wait_for()


def test_the_input_of_the_model_is_shown(page, picture, novel_view):
    source = page.locator("#cutout img").get_attribute("src")
    shown = novel_view.prepare(picture, "none").image
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(source.split(",")[1])))), shown)


def test_dragging_the_camera_turns_it(page):
    box = page.locator("#camera-control svg").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    radius = box["width"] * 100 / 280  # of the sphere on the screen: a drag as long turns by 90°
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + radius / 2, y + radius / 3, steps=4)
    assert slider_values(page) == [30, 90, 0]  # the sliders follow at once, the view after release
    page.mouse.up()
    view_after(page, 30, 90, 0)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 1.5 * radius, y - 2 * radius, steps=4)
    page.mouse.up()
    assert slider_values(page) == [-90, -135, 0]  # 225° is −135°; no camera is higher than the pole
    view_after(page, -90, -135, 0)


def test_wheel_keys_and_sliders_move_the_camera(page):
    place = "circle => [circle.getAttribute('cx'), circle.getAttribute('cy')]"
    grip = page.locator("#camera-control .target .handle")
    before = grip.evaluate(place)
    page.locator("#camera-control svg").hover()
    page.mouse.wheel(0, 100)
    page.mouse.wheel(0, 100)
    view_after(page, 0, 45, 0.1)
    page.locator("#camera-control svg").focus()
    for key in ("ArrowDown", "ArrowLeft", "ArrowLeft", "+"):
        page.keyboard.press(key)
    assert slider_values(page) == [5, 35, 0.05]
    view_after(page, 5, 35, 0.05)
    assert grip.evaluate(place) != before
    turn(page, 0, 45, 0)
    assert grip.evaluate(place) == before


def test_touch_turns_the_camera_on_a_phone_without_horizontal_scrolling(chromium, server, picture):
    context = chromium.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    phone = open_page(context, server)
    upload(phone, picture)
    view_after(phone, 0, 45, 0)
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    svg = phone.locator("#camera-control svg")
    svg.scroll_into_view_if_needed()
    box = svg.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    touch = context.new_cdp_session(phone)
    points = [{"x": x, "y": y}, {"x": x - box["width"] * 100 / 280 / 3, "y": y}]
    touch.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": points[:1]})
    touch.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": points[1:]})
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    view_after(phone, 0, 15, 0)
    context.close()


def test_the_film_and_the_sheet_of_an_orbit_can_be_downloaded(page, tmp_path):
    enter(page, "Views in an orbit", 6)
    page.locator("#orbit").click()
    page.get_by_text("6 views in").wait_for()
    page.wait_for_function("document.querySelector('#orbit-files video').readyState >= 2")
    assert page.evaluate("document.querySelector('#orbit-files video').error") is None
    assert page.evaluate("document.querySelector('#orbit-files video').duration") == pytest.approx(0.6, abs=0.11)
    files = {}
    for name in ("Film, MP4", "Film, GIF", "Contact sheet"):
        with page.expect_download() as download:
            page.get_by_role("button", name=name).click()
        files[name] = tmp_path / download.value.suggested_filename
        download.value.save_as(files[name])
    with av.open(files["Film, MP4"]) as film:
        assert sum(1 for _ in film.decode(video=0)) == 6
    assert Image.open(files["Film, GIF"]).n_frames == 6
    assert Image.open(files["Contact sheet"]).width == 7 * (128 + 4)  # the input and six views


@pytest.mark.slow
def test_a_3d_model_can_be_turned_and_downloaded(chromium, tmp_path):
    process, url = serve("sampling.steps=4", "preview_steps=2", "reconstruction_views=9", "cutout=none")
    try:
        tab = open_page(chromium, url, viewport={"width": 1280, "height": 1000})
        upload(tab, box_picture(tmp_path))
        view_after(tab, 0, 45, 0)
        tab.locator("#reconstruct").click()
        tab.get_by_text("3D model in").wait_for()
        canvas = tab.locator("#solid-files canvas")
        canvas.wait_for()
        with tab.expect_download() as download:
            tab.get_by_role("button", name="3D model, GLB").click()
        mesh = read_mesh(download.value.path().rename(tmp_path / "model.glb"))
        assert check_surface(mesh.vertices, mesh.faces).watertight
        assert np.ptp(mesh.vertices, axis=0).max() == pytest.approx(1, abs=1e-6)
        tab.wait_for_timeout(1000)  # until the model is drawn
        before = canvas.screenshot()
        assert len(np.unique(np.asarray(Image.open(io.BytesIO(before)).convert("RGB")).reshape(-1, 3), axis=0)) > 50
        box = canvas.bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        tab.mouse.move(x, y)
        tab.mouse.down()
        tab.mouse.move(x + 150, y, steps=5)
        tab.mouse.up()
        tab.wait_for_timeout(500)
        assert canvas.screenshot() != before
        tab.close()
    finally:
        process.kill()
        process.communicate()


def test_the_view_can_be_downloaded(page):
    seen = view_after(page, 0, 45, 0)
    with page.expect_download() as download:
        page.locator("#view a[download]").click()
    assert download.value.suggested_filename == "view_+0_+45_+0.png"
    np.testing.assert_array_equal(np.asarray(Image.open(download.value.path())), np.asarray(seen))


def bad_files(picture):
    whole = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(whole, "PNG")
    giant = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(giant, "PNG")
    return {
        "cut.png": (whole.getvalue()[:3000], "cut.png is damaged"),
        "words.png": (b"no picture at all", "words.png is not a picture"),
        "giant.png": (giant.getvalue(), "giant.png"),
    }


def test_invalid_uploads_show_an_error_and_the_next_picture_works(chromium, server, picture, temporary_folder):
    page = open_page(chromium, server)
    for name, (content, sentence) in bad_files(picture).items():
        upload(page, {"name": name, "mimeType": "image/png", "buffer": content})
        page.locator(".toast-body", has_text=sentence).wait_for()
        assert sentence in page.locator("#status").inner_text()
        assert str(temporary_folder) not in page.locator("body").inner_text() and "Traceback" not in page.content()
    upload(page, picture)
    view_after(page, 0, 45, 0)
    page.close()


def test_the_page_sends_no_request_to_other_hosts(page, server):
    hosts = {urlsplit(url).netloc for url in page.requests if not url.startswith(("data:", "blob:"))}
    assert hosts == {urlsplit(server).netloc}


def test_no_file_of_the_server_can_be_read(server, folder):
    secret = folder / "model_index.json"
    paths = ["/etc/passwd", str(secret), f"{PROJECT}/pyproject.toml", "pyproject.toml", "file:///etc/passwd"]
    paths += ["../../etc/passwd", "//etc/passwd", "/proc/self/environ", "http://127.0.0.1:9/x", "~/.bashrc"]
    (upload,) = httpx.post(f"{server}/gradio_api/upload", files={"files": ("a.png", b"mine")}).json()
    assert httpx.get(f"{server}/gradio_api/file={upload}").content == b"mine"
    paths += [f"{upload}/../../../../etc/passwd", f"{Path(upload).parents[1]}/../../etc/passwd"]
    for path in paths:
        for shape in (path, quote(path, safe=""), quote(quote(path, safe=""), safe="")):
            for route in ("file=", "gradio_api/file=", "gradio_api/file/", "gradio_api/proxy=", "static/", "assets/"):
                with socket.create_connection(
                    urlsplit(server).netloc.split(":")
                ) as line:  # a socket, since clients normalise paths
                    line.sendall(f"GET /{route}{shape} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n".encode())
                    answer = b"".join(iter(lambda: line.recv(65536), b""))
                assert re.match(rb"HTTP/1.1 (403|404|400)", answer), (route, shape, answer[:200])
                assert b"root:" not in answer and b"_class_name" not in answer and b"[project]" not in answer


def test_a_file_above_the_size_limit_is_refused(server, temporary_folder):
    answer = httpx.post(f"{server}/gradio_api/upload", files={"files": ("large.png", bytes(2**20 + 1))})
    assert answer.status_code == 413 and not list(temporary_folder.rglob("large.png"))


def test_routes_that_the_page_does_not_need_are_closed(server):
    for route in ("monitoring", "gradio_api/vibe-code", "gradio_api/openapi.json", "gradio_api/runs", "docs"):
        assert httpx.get(f"{server}/{route}").status_code == 404
    assert httpx.get(server, headers={"Host": "elsewhere.example"}).status_code == 400


def send_request(server, name, **changes):
    """Return the response to a forged request of the camera's release event, with session hash `name`."""
    config = httpx.get(f"{server}/config").json()
    ids = {part["props"].get("label") or part["props"].get("elem_id"): part["id"] for part in config["components"]}
    (handler,) = [
        one
        for one in config["dependencies"]
        if [ids["camera-control"], "release"] in one["targets"] and one["queue"] is not False
    ]
    values = {"camera-control": [0, 45, 0], "Seed": 0, "Steps": 5, "Guidance": 3, "Sampler": "ddim"} | changes
    names = {number: label for label, number in ids.items()}
    data = [
        values.get(names.get(number), 20 if number is not handler["inputs"][0] else None)
        for number in handler["inputs"]
    ]
    body = json.dumps({"data": data, "fn_index": handler["id"], "session_hash": name, "event_data": None})
    joined = httpx.post(f"{server}/gradio_api/queue/join", content=body, headers={"Content-Type": "application/json"})
    if joined.status_code != 200:
        return joined.text
    with httpx.stream("GET", f"{server}/gradio_api/queue/data?session_hash={name}", timeout=60) as lines:
        for line in lines.iter_lines():
            if "process_completed" in line:
                return json.loads(line.removeprefix("data: "))
    return None


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"camera-control": [0, float("nan"), 0]}, "[Δpolar, Δazimuth, Δradius]"),
        ({"camera-control": "behind"}, "[Δpolar, Δazimuth, Δradius]"),
        ({"Steps": 10_000}, "50"),
        ({"Seed": -1}, "0"),
        ({"Seed": float("nan")}, "seed"),
        ({"Guidance": 1e9}, "20"),
        ({"Sampler": "__import__"}, "__import__"),
    ],
)
def test_values_that_the_page_cannot_send_are_refused(server, changes, sentence):
    response = send_request(server, "forged", **changes)
    assert not response["success"], response
    assert sentence in response["output"]["error"] and "Traceback" not in str(response)


def test_a_port_in_use_is_refused(folder):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = command("inference.demo", f"checkpoint={folder}", f"port={port}")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: host=127.0.0.1 port={port}: another process listens there already")
    assert len(done.stderr.splitlines()) == 1


def test_a_public_address_prints_a_warning():
    done = command("inference.demo", "checkpoint=nothing", "host=0.0.0.0", "port=0")
    assert done.returncode == 2
    warning, error = done.stderr.splitlines()
    assert warning.startswith("warning: host=0.0.0.0 lets everyone who reaches this machine")
    assert error.startswith("error: there is no folder nothing")


def test_ctrl_c_stops_the_server_and_removes_its_files(serving, temporary_folder):
    """Runs last, since it stops the server of the other tests."""
    process, url = serving
    httpx.post(f"{url}/gradio_api/upload", files={"files": ("a.png", b"mine")})
    assert list(temporary_folder.rglob("a.png"))
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0 and not out and "Traceback" not in err, (out, err)
    assert not list(temporary_folder.iterdir())
