"""report.md as one self-contained page: style and figures inside, nothing is fetched."""

import base64
import html
from collections.abc import Mapping

from markdown_it import MarkdownIt

STYLE = """
body { max-width: 60rem; margin: 2rem auto; padding: 0 1.2rem; color: #1a1a1a; background: #fff;
  font: 15px/1.5 system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; }
h2 { font-size: 1.25rem; margin-top: 2.4rem; border-bottom: 1px solid #bbb; }
h3 { font-size: 1.05rem; margin-top: 1.8rem; }
.table { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .87rem; font-variant-numeric: tabular-nums; }
th, td { padding: .22rem .7rem; border-bottom: 1px solid #ddd; text-align: left; }
td { white-space: nowrap; }
th { vertical-align: bottom; border-bottom: 1.5px solid #444; }
th:first-child, td:first-child { position: sticky; left: 0; background: #fff; }
tbody tr:hover td { background: #f2f5f9; }
img { display: block; max-width: 100%; height: auto; margin: 1.2rem 0 .4rem; }
img + br { display: none; }
p:has(> img) { font-size: .87rem; color: #333; }
code { font-size: .9em; overflow-wrap: anywhere; }
@media print {
  @page { margin: 16mm; }
  body { max-width: none; margin: 0; padding: 0; font-size: 10pt; }
  .table { overflow: visible; }
  table { font-size: 8pt; }
  th, td { padding: .12rem .4rem; }
  td:not([style*="right"]) { white-space: normal; }
  img { max-height: 230mm; width: auto; }
  thead { display: table-header-group; }
  tr, img, p:has(> img) { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
}
"""


def html_page(markdown: str, *, title: str, svgs: Mapping[str, str]) -> str:
    """The page of a report.

    Args:
      markdown: of report.md.
      title: for the browser's tab.
      svgs: link of an image in `markdown` -> the SVG to put in its place.
    """
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    parser.add_render_rule("image", _image)
    parser.add_render_rule("table_open", _table_open)
    parser.add_render_rule("table_close", _table_close)
    body = parser.render(markdown, {"svgs": svgs})
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n{body}</body>\n</html>\n"
    )


def _image(renderer, tokens, index, options, env) -> str:
    token = tokens[index]
    data = base64.b64encode(env["svgs"][token.attrs["src"]].encode()).decode()
    alt = html.escape(token.content, quote=True)
    return f'<img alt="{alt}" src="data:image/svg+xml;base64,{data}">'


def _table_open(renderer, tokens, index, options, env) -> str:
    return '<div class="table">\n<table>\n'


def _table_close(renderer, tokens, index, options, env) -> str:
    return "</table>\n</div>\n"
