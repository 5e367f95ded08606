#!/usr/bin/env python3
"""Draws the rates of a benchmark's TSV file as bars: plot.py IN.tsv OUT.svg"""
import sys
import textwrap
from collections import defaultdict
from html import escape
from statistics import median

COLUMNS, PANEL_WIDTH, BAR, LABEL_WIDTH, VALUE_WIDTH = 4, 250, 14, 92, 48
MARGIN, TITLE_HEIGHT, SECTION_HEIGHT = 20, 22, 34
OURS, PEER, TEXT, FAINT = "#c8502a", "#9aa7b4", "#24292f", "#6e7781"
WIDTH = 2 * MARGIN + COLUMNS * PANEL_WIDTH


def place(size, threads, records, workload, base):
    """The section that a workload is drawn in, and the title of its panel there."""
    plural = f"{threads} thread{'s' if threads > 1 else ''}"
    if workload == "synced":
        return (2, "Writes that wait for the disk"), plural
    if size != base:
        return (3, "Larger values, 1 thread"), f"{workload}, {size:,} bytes"
    return (1, f"{size}-byte values, {plural}, {records:,} records"), workload


def read(path):
    """Comment lines, and {section: {panel: {store: median rate}}}."""
    notes, rates = [], defaultdict(list)
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("# "):
                notes.append(line[2:].strip())
                continue
            fields = line.rstrip("\n").split("\t")
            store, workload, threads, size, records, _, metric, value = fields
            if metric == "ops_s":
                rates[int(size), int(threads), int(records), workload, store].append(float(value))
    base = min((size for size, *_ in rates), default=0)
    sections = defaultdict(lambda: defaultdict(dict))
    for (size, threads, records, workload, store), values in rates.items():
        section, panel = place(size, threads, records, workload, base)
        sections[section][panel][store] = median(values)
    return notes, sections


def short(rate):
    for unit, scale in (("M", 1e6), ("k", 1e3)):
        if rate >= scale:
            return f"{rate / scale:.3g} {unit}"
    return f"{rate:.3g}"


class Svg:
    def __init__(self):
        self.parts = []

    def text(self, x, y, text, size=11, fill=TEXT, anchor="start", weight="normal"):
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{fill}" '
                          f'text-anchor="{anchor}" font-weight="{weight}">{escape(text)}</text>')

    def bar(self, x, y, width, fill):
        self.parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{BAR - 4}" '
                          f'rx="1.5" fill="{fill}"/>')

    def write(self, path, height):
        with open(path, "w", encoding="utf-8") as out:
            out.write(f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" '
                      f'height="{height:.0f}" viewBox="0 0 {WIDTH} {height:.0f}" '
                      f'font-family="Helvetica, Arial, sans-serif">\n'
                      f'<rect width="100%" height="100%" fill="#ffffff"/>\n')
            out.write("\n".join(self.parts) + "\n</svg>\n")


def draw_panel(svg, x, y, title, stores):
    """The floor is not a bar: it would leave nothing to see of the others."""
    floor = stores.get("floor")
    bars = {name: rate for name, rate in stores.items() if name != "floor"}
    svg.text(x, y + 14, title, size=12, weight="bold")
    if floor:
        svg.text(x + PANEL_WIDTH - 16, y + 14, f"floor {short(floor)}", size=10, fill=FAINT,
                 anchor="end")
    longest = max(bars.values())
    room = PANEL_WIDTH - 16 - LABEL_WIDTH - VALUE_WIDTH
    for i, (name, rate) in enumerate(bars.items()):
        top = y + TITLE_HEIGHT + i * BAR
        ours = name.startswith("kvstore")
        length = max(1.0, room * rate / longest)
        svg.text(x + LABEL_WIDTH - 6, top + 9, name, size=10, anchor="end",
                 weight="bold" if ours else "normal")
        svg.bar(x + LABEL_WIDTH, top, length, OURS if ours else PEER)
        svg.text(x + LABEL_WIDTH + length + 4, top + 9, short(rate), size=10)


def draw(notes, sections):
    svg = Svg()
    svg.text(MARGIN, 32, "Operations a second", size=18, weight="bold")
    svg.text(MARGIN, 50, "medians; longer is better", size=11, fill=FAINT)
    y = 58.0
    for (_, title), panels in sorted(sections.items(), key=lambda item: item[0][0]):
        panels = [(panel, stores) for panel, stores in panels.items() if set(stores) - {"floor"}]
        if not panels:
            continue
        svg.text(MARGIN, y + 22, title, size=13, fill=FAINT)
        y += SECTION_HEIGHT
        for row in range(0, len(panels), COLUMNS):
            line = panels[row:row + COLUMNS]
            for column, (panel, stores) in enumerate(line):
                draw_panel(svg, MARGIN + column * PANEL_WIDTH, y, panel, stores)
            y += TITLE_HEIGHT + BAR * max(len(set(s) - {"floor"}) for _, s in line) + 12
    y += 16
    for note in notes:
        for i, line in enumerate(textwrap.wrap(note, 175)):
            svg.text(MARGIN + (14 if i else 0), y, line, size=10, fill=FAINT)
            y += 14
    return svg, y + 10


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    svg, height = draw(*read(sys.argv[1]))
    svg.write(sys.argv[2], height)


if __name__ == "__main__":
    main()
