"""Load a checkpoint and serve the web page."""

import errno
import os
import signal
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event

from PIL import Image

from conf.options import UserError
from inference.config import DemoConfig
from inference.novel_view import NovelView
from inference.preprocess.background import segmenter
from inference.preprocess.framing import Prepared
from inference.web.middleware import LOOPBACK, request_filters
from inference.web.service import ViewService
from training.model.hardware.cpu_threads import use_free_cores


def load_and_serve(config: DemoConfig, port: int) -> None:
    """Load the checkpoint and serve the page on `port` until Ctrl-C or SIGTERM."""
    if config.host not in LOOPBACK:
        print(
            f"warning: host={config.host} lets everyone who reaches this machine sample on it, without a password",
            file=sys.stderr,
        )
    if config.cutout not in ("auto", "none"):
        segmenter(config.cutout)  # so that a wrong model is refused before the first visitor comes
    novel_view = NovelView.load(config.checkpoint, config.device, config.precision, config.compile)
    # One thread uses the device: a CUDA graph belongs to the thread that recorded it, CPU threads to their master.
    prepare_thread = use_free_cores if novel_view.model.device.type == "cpu" else None
    with ThreadPoolExecutor(1, initializer=prepare_thread) as device:
        if config.compile:
            compile_ahead(novel_view, device)
        with TemporaryDirectory(prefix="zero123-demo-") as folder:
            serve(ViewService(novel_view, device, config, Path(folder).resolve()), port)


def compile_ahead(novel_view: NovelView, device: Executor) -> None:
    """Sample a view, so that the U-Net is compiled before the first visitor comes."""
    blank = Image.new("RGB", (64, 64), "white")
    with ended_by_signals():
        print("compiling …", flush=True)
        device.submit(
            novel_view, Prepared(blank, blank), [[0, 0, 0]], steps=2, elevation=0.0, on_step=lambda done, total: None
        ).result()


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the process at once, since a compilation in another thread cannot be interrupted."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number, handler in handlers.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def serve(service: ViewService, port: int) -> None:
    """Serve the page until Ctrl-C or SIGTERM, with all uploaded and sampled files in `service.files`."""
    config, files = service.config, service.files
    # gradio reads these when it is imported.
    os.environ["GRADIO_TEMP_DIR"] = os.environ["GRADIO_EXAMPLES_CACHE"] = str(files)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    from inference.web.handlers import connect_events
    from inference.web.layout import STYLE, build_page, theme

    page = build_page(service)
    blocks = page.blocks
    with blocks:
        connect_events(page, service)
    blocks.queue(max_size=config.queue, api_open=False)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        blocks.launch(
            server_name=in_address(config.host), server_port=port, share=False, quiet=True, show_error=False,
            prevent_thread_lock=True, inbrowser=False, ssr_mode=False, mcp_server=False, pwa=False,
            enable_monitoring=False, run_history=False, footer_links=[], allowed_paths=[],
            max_file_size=config.max_megabytes * 2**20, state_session_capacity=config.sessions,
            theme=theme(), css=STYLE, app_kwargs={"middleware": request_filters(config.host, files)},
        )  # fmt: skip
        name = socket.gethostname() if config.host in ("0.0.0.0", "::") else config.host
        print(f"page: http://{in_address(name)}:{port}", flush=True)
        Event().wait()
    except KeyboardInterrupt:
        pass
    finally:
        service.closing.set()
        blocks.close(verbose=False)


def in_address(host: str) -> str:
    """Return a host as it is written in an address: IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host


def free_port(host: str, port: int) -> int:
    """Return `port` if it is free on `host`; any free port for 0.

    Raises:
        UserError: The port is in use, or this machine has no such address.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            return int(probe.getsockname()[1])
    except OSError as error:
        reason = (
            "another process listens there already"
            if error.errno == errno.EADDRINUSE
            else (error.strerror or str(error)).lower()
        )
        raise UserError(f"host={host} port={port}: {reason}; give another port, or port=0 for any free one") from None
