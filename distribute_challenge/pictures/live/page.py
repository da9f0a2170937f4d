"""The frame of the page and of the report: wide or narrow, light or dark. It asks nobody for anything."""

from __future__ import annotations

from typing import NamedTuple

from distribute_challenge.pictures.live.charts import GREEN, MARKS, PINK, RED, SKY

TABLES = """
.bk-clearfix { width: 100%; }
table { border-collapse: collapse; font-size: 13px; line-height: 1.35; min-width: 100%; }
th, td { padding: 3px 12px 3px 0; text-align: left; vertical-align: top; white-space: nowrap; }
th { color: var(--soft); font-weight: 500; border-bottom: 1px solid var(--line); }
td { border-bottom: 1px solid var(--line); font-variant-numeric: tabular-nums; }
.n { text-align: right; }
.why { white-space: normal; overflow-wrap: anywhere; min-width: 16em; }
.wide { overflow-x: auto; color: var(--ink); }
.bad { color: var(--bad); }
.good { color: #009e73; }
i, em, .note { color: var(--soft); font-style: normal; }
em { color: var(--bad); }
s { display: inline-block; width: 10px; height: 10px; border-radius: 2px; margin: 0 4px 0 2px; }
.note { font-size: 13px; margin: 6px 0; }
.numbers { display: flex; flex-wrap: wrap; gap: 6px 28px; margin: 0; color: var(--ink); }
.numbers dt { color: var(--soft); font-size: 12px; }
.numbers dd { margin: 0; font-size: 21px; font-variant-numeric: tabular-nums; }
"""

CONTROLS = """
.bk-input, .bk-btn { background: var(--paper); color: var(--ink); border-color: var(--line); }
.bk-btn.bk-active { background: var(--ink); color: var(--paper); }
"""

STYLE = """
:root {
  color-scheme: light dark;
  --ink: #1d2126; --soft: #626a73; --paper: #ffffff; --card: #f7f8fa; --line: #e3e6ea; --bad: #b84300;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e6e9ed; --soft: #98a1ab; --paper: #14171a; --card: #1c2024; --line: #2d3238; --bad: #ff8d4d;
  }
}
html { height: auto; }
body.gone::before {
  content: "The page has lost its server: what it shows stays as it is. Open the URL of a new one.";
  display: block; background: var(--bad); color: var(--paper); padding: 6px 12px; border-radius: 8px;
  margin-bottom: 10px;
}
body {
  background: var(--paper); color: var(--ink); margin: 0 auto; padding: 14px clamp(8px, 2vw, 28px) 40px;
  max-width: 1800px; font: 15px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
}
header { display: flex; flex-wrap: wrap; align-items: baseline; gap: 2px 16px; margin-bottom: 10px; }
h1 { font-size: 19px; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 13px; font-weight: 600; margin: 0 0 4px; color: var(--soft); }
header p { margin: 0; color: var(--soft); font-size: 13px; }
main { display: grid; gap: 12px; grid-template-columns: minmax(0, 1fr); }
section {
  background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: 10px 12px; min-width: 0;
}
#workers, #functions { max-height: 30em; overflow-y: auto; }
@media (min-width: 1000px) {
  main { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  section.whole { grid-column: 1 / -1; }
}
"""

TEMPLATE = """
{% block postamble %}
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<link rel="icon" href="data:,">
<style>{{ style }}</style>
{% endblock %}
{% block contents %}
<header><h1>{{ title | e }}</h1><p>{{ subtitle }}</p></header>
<main>
{% for section in sections %}
<section id="{{ section.name }}" class="{{ 'whole' if section.is_whole }}">
{% if section.title %}<h2>{{ section.title }}</h2>{% endif %}
{{ section.html }}
{% for root in section.roots %}{{ embed(roots[root]) }}{% endfor %}
</section>
{% endfor %}
</main>
{% endblock %}
"""


def key(color: str) -> str:
    """A colour, for a legend."""
    return f"<s style='background:{color}'></s>"


class Section(NamedTuple):
    """A part of the page: HTML, and below it Bokeh's models of these names."""

    name: str
    title: str
    roots: tuple[str, ...] = ()
    html: str = ""
    is_whole: bool = False  # it has the whole width


# Of the marks, in their order.
SIGNS = ("&#10005;", "&#9670;", "&#9632;", "&#9733;", "&#9660;", "&#9679;")
LEGEND = (
    "<p class=note>A block is a task, in the colour of its function; short ones are drawn together, the "
    f"darker, the more of the time they took. Hatched: it runs now. {key(RED)} below: something failed. "
    + " ".join(
        f"<b style='color:{color}'>{sign}</b> {name}"
        for sign, (name, (_, color)) in zip(SIGNS, MARKS.items(), strict=True)
    )
    + "</p>"
)
CHARTS = (
    Section("throughput", f"tasks per second: {key(GREEN)} returned {key(RED)} failed", ("throughput",)),
    Section("waiting", f"in line: {key(PINK)} tasks {key(SKY)} clients", ("waiting",)),
    Section("cpu", "CPU of all workers (% of one core)", ("cpu",)),
    Section("memory", "memory of all workers (MiB)", ("memory",)),
)


def variables(sections: list[Section], subtitle: str) -> dict[str, object]:
    """What the template takes."""
    return {"style": STYLE + TABLES, "sections": sections, "subtitle": subtitle}
