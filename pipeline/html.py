"""Build self-contained HTML pages with images embedded as data URLs."""

import base64
from collections.abc import Callable, Iterable
from html import escape

from pipeline.output import is_marked, mark

STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --soft: #6b7075; --line: #e3e5e8; --page: #fafafa; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e9eb; --soft: #9aa0a6; --line: #33363a; --page: #17181a; } }
body { font: 15px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--page);
       max-width: 1180px; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .4rem; } h2 { margin: 2.6rem 0 .5rem; font-size: 1.3rem; }
p { max-width: 46rem; } .soft, figcaption { color: var(--soft); }
figure { margin: .5rem 0 1rem; } figcaption { font-size: .82rem; overflow-wrap: anywhere; }
.sheet { display: grid; grid-template-columns: repeat(12, 1fr); gap: 2px; padding: 4px; background: #fff;
         border: 1px solid var(--line); border-radius: 8px; }
@media (max-width: 700px) { .sheet { grid-template-columns: repeat(6, 1fr); } }
.sheet img { width: 100%; display: block; }
.rows { display: grid; grid-template-columns: repeat(auto-fill, minmax(330px, 1fr)); gap: 1rem 1.5rem;
        margin-top: 1.5rem; }
.cells { display: grid; grid-auto-flow: column; grid-auto-columns: 1fr; background: #fff; color: #6b7075;
         border: 1px solid var(--line); border-radius: 8px; overflow: hidden; text-align: center; font-size: .75rem; }
.cells img { width: 100%; display: block; } .row { margin: 0; }
.orbits { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 500px), 1fr)); gap: 1.2rem;
          margin-top: 1.5rem; }
.orbit { display: grid; grid-template-columns: 2fr 3fr; gap: .5rem; align-items: start; margin: 0; }
.orbit .sheet { grid-template-columns: repeat(4, 1fr); } .orbit figcaption { grid-column: 1 / -1; }
.paper { background: #fff; border: 1px solid var(--line); border-radius: 8px; padding: .5rem; }
.paper svg { width: 100%; height: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .6rem 0; }
th, td { text-align: left; padding: .3rem .9rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
"""


def page(title: str, body: str, command: str) -> bytes:
    """Return a complete HTML document with the mark of `command`; `body` is HTML and is not escaped."""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="generator" content="{mark(command)}">'
        f"<style>{STYLE}</style></head><body>\n{body}\n</body></html>\n"
    ).encode()


def is_page(command: str, earlier: bytes) -> Callable[[bytes], bool]:
    """Return a check for pages of `command`; pages written before marks were introduced contain `earlier`."""
    marked = is_marked(command)
    return lambda edges: marked(edges) or (earlier in edges and STYLE.strip().splitlines()[0].encode() in edges)


def picture(contents: bytes, kind: str, alt: str) -> str:
    """Return an `<img>` element with the encoded image `contents`; `kind` is its format (webp or png)."""
    data = base64.b64encode(contents).decode()
    return f'<img alt="{escape(alt)}" loading="lazy" src="data:image/{kind};base64,{data}">'


def views_figure(views: Iterable[bytes], name: str, caption: str) -> str:
    """Return a figure with the WebP views of one object, 12 per row, and a caption."""
    images = "".join(picture(view, "webp", f"{name}, view {i}") for i, view in enumerate(views))
    text = f"<b>{escape(name)}</b> {escape(caption)}"
    return f'<figure><div class="sheet">{images}</div><figcaption>{text}</figcaption></figure>'


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Return an HTML table; the cells are converted to text and escaped."""

    def line(cells: Iterable[object], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(str(cell))}</{tag}>" for cell in cells) + "</tr>"

    return f"<table>{line(head, 'th')}{''.join(line(row, 'td') for row in rows)}</table>"
