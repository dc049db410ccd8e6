"""The web page of `inference.demo`: layout, event handlers, and the service that samples views on one device.

Exported, each imported on first use (gradio reads its environment variables when it is imported):
    ViewService, ViewRequest, Session: sample views for visitors, one at a time.
    Page, build_page: the components of the page.
    connect_events: the page's event handlers.
    request_filters: the middleware that rejects requests of other sites and for other files.
"""

from typing import TYPE_CHECKING

from conf.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from inference.web.handlers import connect_events
    from inference.web.layout import Page, build_page
    from inference.web.middleware import request_filters
    from inference.web.service import Session, ViewRequest, ViewService

__all__ = [
    "Page", "Session", "ViewRequest", "ViewService", "build_page", "connect_events", "request_filters",
]  # fmt: skip
__getattr__ = lazy_exports(
    __name__,
    {
        "Page": "layout",
        "Session": "service",
        "ViewRequest": "service",
        "ViewService": "service",
        "build_page": "layout",
        "connect_events": "handlers",
        "request_filters": "middleware",
    },
)
