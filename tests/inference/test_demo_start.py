"""The command of the web page until it serves: Ctrl-C while it loads or compiles, and the addresses of this machine."""

import asyncio
import signal
import socket
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from inference.novel_view import NovelView
from inference.web.middleware import request_filters
from inference.web.server import compile_ahead
from tests.support.command import Started

STOPPED_S = 15  # the time that a busy machine may take


def test_ctrl_c_ends_a_download(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # a hub that never answers
        hub = f"http://127.0.0.1:{silent.getsockname()[1]}"
        demo = Started("inference.demo", "checkpoint=org/name", "port=0", HF_ENDPOINT=hub, TMPDIR=str(tmp_path))
        silent.accept()
        demo.send_signal(signal.SIGINT)
        assert demo.wait(STOPPED_S) == 128 + signal.SIGINT
    out, err = demo.communicate()
    assert not out and "Traceback" not in err and err.splitlines()[-1].startswith("stopped")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_a_compilation(folder, tmp_path, number):
    demo = Started(
        "inference.demo", f"checkpoint={folder}", "port=0", "compile=true", "device=cpu",
        TMPDIR=str(tmp_path), TORCHINDUCTOR_CACHE_DIR=str(tmp_path / "cache"),
    )  # fmt: skip
    assert demo.stdout.readline() == "compiling …\n"
    demo.send_signal(number)
    assert demo.wait(STOPPED_S) == -number
    assert not list(tmp_path.glob("zero123-demo-*"))


def test_a_checkpoint_of_stable_zero123_is_compiled_ahead(stable_folder, capsys):
    before = signal.getsignal(signal.SIGINT)
    with ThreadPoolExecutor(1) as device:
        compile_ahead(NovelView.load(stable_folder, "cpu"), device)
    assert capsys.readouterr().out and signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_a_page_for_this_machine_alone_refuses_other_names(host, tmp_path):
    app = Starlette(routes=[Route("/", lambda request: PlainTextResponse("page"))])
    for filter in request_filters(host, tmp_path):
        app.add_middleware(filter.cls, **filter.kwargs)

    async def status(name):
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=f"http://{name}:7860") as client:
            return (await client.get("/")).status_code

    statuses = {name: asyncio.run(status(name)) for name in ("127.0.0.1", "localhost", "[::1]", "elsewhere.example")}
    assert statuses == {"127.0.0.1": 200, "localhost": 200, "[::1]": 200, "elsewhere.example": 400}


def test_a_page_can_be_served_on_ipv6(folder, tmp_path):
    if not socket.has_ipv6:
        pytest.skip("needs IPv6")
    demo = Started("inference.demo", f"checkpoint={folder}", "port=0", "host=::1", "cutout=none", TMPDIR=str(tmp_path))
    line = demo.stdout.readline()
    assert line.startswith("page: http://[::1]:"), demo.communicate()
    url = line.removeprefix("page: ").strip()
    assert httpx.get(url).status_code == 200
    assert httpx.get(url, headers={"Host": "elsewhere.example"}).status_code == 400
    demo.send_signal(signal.SIGINT)
    _, err = demo.communicate()
    assert demo.returncode == 0 and not err
