"""Building blocks of an HTML page that needs nothing else: no network, and no script but its own if it has one."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Iterable, Sequence
from html import escape

Cell = str | tuple[str, str]  # text, or text and the cell's further attributes

STYLE = """
:root { color-scheme: light; --ink: #1d2329; --soft: #5b6570; --line: #dfe3e8; --shade: #f6f7f9; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.5rem 4rem; max-width: 78rem; color: var(--ink); background: #fff;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .5rem; letter-spacing: -.01em; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 3rem 0 .4rem; padding-top: .9rem; border-top: 1px solid var(--line); }
p { margin: .3rem 0 .9rem; max-width: 48rem; }
.soft, figcaption { color: var(--soft); font-size: .9rem; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr)); gap: 1.75rem 2rem;
  align-items: start; }
figure { margin: 0 0 1.75rem; min-width: 0; }
.plots figure { margin: 0; }
figure:not(.wide) { max-width: 40rem; }
figcaption { margin-bottom: .3rem; overflow-wrap: anywhere; }
figcaption b { color: var(--ink); display: block; font-weight: 600; }
.scroll { overflow-x: auto; margin-bottom: 1.75rem; }
figure .scroll { margin: 0; }
svg { display: block; width: 100%; min-width: 21rem; height: auto; }
.wide svg { min-width: 48rem; }
svg text { font-family: inherit !important; }
table { border-collapse: separate; border-spacing: 0; font-size: 14px; line-height: 19px;
  font-variant-numeric: tabular-nums; }
th, td { padding: 5px 10px; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th:first-child { text-align: left; }
thead th { vertical-align: bottom; color: var(--soft); font-weight: 600; border-bottom: 2px solid #aab2bb; }
tbody th { font-weight: 500; position: sticky; left: 0; background: #fff; max-width: 17rem; overflow: hidden;
  text-overflow: ellipsis; }
td small { color: var(--soft); display: block; font-size: 12px; line-height: 15px; }
i.key { font-style: normal; margin-right: .45em; font-family: "DejaVu Sans", sans-serif; font-size: .8em; }
.upright thead th:not(:first-child) { writing-mode: vertical-rl; transform: rotate(180deg); text-align: left;
  padding: 8px 5px; border: 0; max-height: 13rem; overflow: hidden; text-overflow: ellipsis; }
.upright td { text-align: center; padding: 5px 7px; }
.heat td { border: 1px solid #fff; }
.about td { white-space: normal; overflow-wrap: anywhere; text-align: left; min-width: 12rem; }
.about th { vertical-align: top; max-width: none; }
pre { background: var(--shade); border: 1px solid var(--line); border-radius: 6px; padding: .8rem 1rem;
  font-size: .85rem; white-space: pre-wrap; overflow-wrap: anywhere; }
summary { cursor: pointer; font-weight: 500; margin: .6rem 0 .5rem; }
@media (max-width: 40rem) { body { padding: 1.25rem 1rem 3rem; } h1 { font-size: 1.4rem; } h2 { margin-top: 2.2rem; } }
"""


def page(title: str, content: str, style: str = "", script: str = "") -> str:
    """A whole page, which the browser lets load nothing and run nothing else.

    Args:
        title: text.
        content: HTML.
        style: CSS beside that of every page.
        script: JavaScript that runs once the content is there; the page's policy names its hash.
    """
    policy, last = "default-src 'none'; style-src 'unsafe-inline'; img-src data:", ""
    if script:
        digest = b64encode(hashlib.sha256(script.encode()).digest()).decode()
        policy += f"; script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
        last = f"<script>{script}</script>\n"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<style>{STYLE}{style}</style>
</head>
<body>
<main>
{content}
</main>
{last}</body>
</html>
"""


def table(headings: Sequence[str], rows: Iterable[Sequence[Cell]], caption: str, kind: str = "") -> str:
    """A table in a frame that scrolls sideways where the screen is narrow.

    Args:
        headings: HTML.
        rows: HTML; the first cell names its row.
        caption: HTML.
        kind: classes.
    """
    head = "".join(f'<th scope="col">{heading}</th>' for heading in headings)
    body = []
    for first, *cells in rows:
        tail = "".join(f"<td>{c}</td>" if isinstance(c, str) else f"<td{c[1]}>{c[0]}</td>" for c in cells)
        body.append(f'<tr><th scope="row">{first}</th>{tail}</tr>')
    return (
        f'<p class="soft">{caption}</p><div class="scroll"><table class="{kind}">'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>\n"
    )


def figure(title: str, caption: str, svg: str, kind: str = "") -> str:
    """A plot with its title and caption.

    Args:
        title: text.
        caption: text.
        svg: an ``<svg>`` element.
        kind: classes.
    """
    labelled = svg.replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1)
    return (
        f'<figure class="{kind}"><figcaption><b>{escape(title)}</b>{escape(caption)}</figcaption>'
        f'<div class="scroll">{labelled}</div></figure>'
    )
