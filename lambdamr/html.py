"""HTML for notebooks and report files: inline styles alone, so that it looks the same in every
frontend, in light and in dark, and where notebooks are sanitised.
"""

from collections.abc import Iterable, Sequence
from html import escape

GREEN, RED, GREY = "#2e9e6b", "#d6455d", "#8a8f98"
"""Legible on white and on black."""

_CARD = (
    "font-family:system-ui,sans-serif;font-size:13px;line-height:1.45;max-width:760px;"
    "border:1px solid rgba(128,128,128,.35);border-radius:6px;padding:10px 14px"
)
_TABLE = "border-collapse:collapse;margin:8px 0 0;font-size:13px;color:inherit"
_CELL = "padding:2px 16px 2px 0;border:none;vertical-align:middle;color:inherit;background:none"
_MONO = "font-family:ui-monospace,monospace;font-size:12px"


def card(*parts: str) -> str:
    """Return a framed box."""
    return f"<div style='{_CARD}'>{''.join(parts)}</div>"


def heading(title: str, notes: Iterable[str]) -> str:
    """Return a line: a title, and what there is to say beside it."""
    said = "".join(f" · {escape(note)}" for note in notes if note)
    return f"<div><b>{escape(title)}</b><span style='opacity:.75'>{said}</span></div>"


def table(rows: Iterable[Sequence[str]]) -> str:
    """Return a table; each cell is HTML already, and but for the first aligned by itself."""
    body = "".join(
        "<tr style='background:none'>"
        + "".join(f"<td style='{_CELL};text-align:left'>{cell}</td>" for cell in row)
        + "</tr>"
        for row in rows
    )
    return f"<table style='{_TABLE}'>{body}</table>"


def bar(done: float, failed: float) -> str:
    """Return a bar, filled by shares between 0 and 1."""
    pieces = "".join(
        f"<div style='width:{share:.2%};background:{colour};height:100%'></div>"
        for share, colour in ((done, GREEN), (failed, RED))
    )
    return (
        "<div style='display:flex;width:220px;height:10px;border-radius:5px;overflow:hidden;"
        f"background:rgba(128,128,128,.25)'>{pieces}</div>"
    )


def lines(texts: Iterable[str]) -> str:
    """Return small lines of text."""
    return "".join(f"<div style='opacity:.75'>{escape(text)}</div>" for text in texts)


def plain(text: str) -> str:
    return f"<span>{escape(text)}</span>"


def code(text: str) -> str:
    return f"<span style='{_MONO}'>{escape(text)}</span>"


def red(text: str) -> str:
    return f"<span style='color:{RED};{_MONO}'>{escape(text)}</span>"


def details(summary: str, body: str) -> str:
    """Return what can be folded; it is open."""
    return (
        f"<details open style='margin-top:6px'><summary>{escape(summary)}</summary>{body}</details>"
    )


def page(title: str, body: str) -> str:
    """Return a whole document, which follows the system's light or dark."""
    return (
        "<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta name='color-scheme' content='light dark'>"
        f"<title>{escape(title)}</title></head>\n"
        f"<body style='background:Canvas;color:CanvasText;margin:24px'>{body}</body></html>\n"
    )
