"""The charts, as SVG that takes its colours from the page, or as one picture that stands alone."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import pandas as pd

from . import units
from .looks import LIGHT, Look, looks
from .sweeps import RIVALS, Sweep, crossover, sweeps

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .history import History

# In the page, what is drawn in these colours of the light theme becomes a CSS variable.
INK, MUTED, GRID, BAND, PAPER = "#1b1f24", "#59636e", "#d5dbe1", "#eef1f5", "#ffffff"
VARIABLES = {INK: "var(--ink)", MUTED: "var(--muted)", GRID: "var(--line)", BAND: "var(--band)", PAPER: "var(--bg)"}
VARIABLES |= {colour: f"var(--c{place})" for place, colour in enumerate(LIGHT)}
BEHIND = {"facecolor": PAPER, "edgecolor": "none", "pad": 0.8}  # of text that lies on lines
# Which measurement of a thing each chart shows: the first that there is.
ORDER = {"roofline": ("hot", "graph", "cold"), "throughput": ("hot", "graph", "cold"), "latency": ("cold", "hot", "graph")}
LEVELS = ("L1", "L2", "L3", "DRAM")

SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 9.0,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.bottom": False,
    "ytick.left": False,
    "xtick.minor.visible": False,
    "ytick.minor.visible": False,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.5,
    "lines.markersize": 4.0,
}


def _figure(
    width: float = 5.6, height: float = 3.5, columns: int = 1, rows: int = 1, head: float = 0.07
) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns, height * rows))
    figure.subplots_adjust(0.105 / columns, 0.135 / rows, 1 - 0.02 / columns, 1 - head / rows, 0.16, 0.26)
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def _svg(figure: Figure, name: str, titles: Mapping[str, str], label: str) -> str:
    """The figure as inline SVG: unique ids, colours by variable, no fonts, no clutter, a title on each marked point."""
    import matplotlib

    with matplotlib.rc_context({**SETTINGS, "svg.hashsalt": name}):
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->|<style.*?</style>", "", text, flags=re.S)
    text = re.sub(r"<svg[^>]*?(viewBox=\"[^\"]*\")[^>]*>", rf'<svg \1 role="img" aria-label="{escape(label)}">', text, count=1)
    for gid, title in titles.items():
        text = text.replace(f'<g id="{gid}">', f"<g><title>{escape(title)}</title>")
    text = re.sub(r"-?\d+\.\d{2,}", lambda match: f"{float(match[0]):.1f}".removesuffix(".0"), text)
    text = re.sub(r"#[0-9a-f]{6}\b", lambda match: VARIABLES.get(match[0], match[0]), text)
    for clutter, instead in CLUTTER:
        text = re.sub(clutter, instead, text, flags=re.S)
    text = re.sub(r' style="([^"]*)"', lambda match: _style_attribute(match[1]), text)
    used = set(re.findall(r"href=\"#([\w-]+)", text))
    text = re.sub(r' id="([^"]*)"', lambda match: match[0] if match[1] in used else "", text)
    return _without_bare_groups(text)


# What draws nothing. Nothing is drawn outside the axes, so nothing needs clipping.
CLUTTER = (
    (r"\s*clip-path=\"[^\"]*\"", ""),
    (r"<defs>\s*(<clipPath.*?)?</defs>", ""),
    (r"<path [^>]*style=\"fill: none\"/>", ""),
    (r" transform=\"rotate\(-0[^\"]*\"", ""),
    (r"xlink:href", "href"),
    (r"\s*\n\s*", "\n"),
    (r"\n(?=[LQCz\"])", ""),
)


def _style_attribute(style: str) -> str:
    """Without what the page's style sheet says of every chart: the font, its usual size and colour, how lines end."""
    size = re.search(r"font(?:-size)?: [^;]*?([\d.]+px)", style)
    parts = [part for part in style.split("; ") if not part.startswith(("font", "stroke-linecap", "stroke-linejoin"))]
    if size:
        parts = [part for part in parts if part != "fill: var(--ink)"]
        parts += [f"font-size: {size[1]}"] if size[1] != "9px" else []
        parts += ["font-weight: 700"] if re.search(r"font(-weight)?: 700", style) else []
    return f' style="{";".join(part.replace(": ", ":") for part in parts)}"' if parts else ""


def _without_bare_groups(text: str) -> str:
    """Leave out groups that carry neither an attribute nor a title."""
    kept: list[str] = []
    bare: list[bool] = []
    for line in text.split("\n"):
        if line.startswith("<g"):
            bare.append(line == "<g>")
            if bare[-1]:
                continue
        elif line == "</g>" and bare.pop():
            continue
        kept.append(line)
    return "\n".join(kept)


def _style(look: Look) -> dict[str, Any]:
    dashes = tuple(float(part) for part in look.dash.split())
    colour = LIGHT[look.colour]
    return {"color": colour, "linestyle": (0, dashes) if dashes else "-", "markerfacecolor": PAPER if dashes else colour}


def _decades(axis: Any, unit: str, factor: float = 1.0) -> None:
    """Tick labels in plain words instead of powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    low, high = axis.get_view_interval()
    wide = math.log10(high / low) > 2.2
    axis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0), numticks=12))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())
    if unit == "s":
        axis.set_major_formatter(FuncFormatter(lambda value, _: units.seconds(value).replace(".00 ", " ").replace(".0 ", " ")))
    else:
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value * factor:g}"))


def _lengths(axis: Any, values: Iterable[float], formatter: Any = units.length) -> None:
    """A tick for every fourth power of two, so that labels never touch."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

    low, high = math.log2(min(values)), math.log2(max(values))
    step = 4 if high - low > 12 else 2
    axis.set_major_locator(FixedLocator([2.0**power for power in range(step * math.ceil(low / step), int(high) + 1, step)]))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: formatter(value)))
    axis.set_minor_formatter(NullFormatter())


def _rates(ceilings: pd.DataFrame, sweep: Sweep, *names: str) -> dict[str, float]:
    """The best measured rate by memory level ("" for arithmetic), of this target, ISA and thread count where there is one."""
    here = ceilings[(ceilings["target"] == sweep.target) & ceilings["ceiling"].isin(names) & ceilings["rate"].notna()]
    for column, value in (("isa", sweep.isa), ("threads", sweep.threads), ("dtype", sweep.dtype)):
        same = here[here[column] == value] if value is not None else here.iloc[:0]
        here = same if len(same) else here
    return {str(level): float(rate) for level, rate in here.groupby(here["level"].fillna(""))["rate"].max().items()}


def draw_throughput(
    axes: Axes, sweep: Sweep, caches: Mapping[str, int], ceilings: pd.DataFrame, look: Mapping[str, Look]
) -> dict[str, str]:
    """Useful GB/s over the working set: the cache levels as bands, the measured copy rate of each as a grey step."""
    lines = sweep.lines(*ORDER["throughput"])
    titles = {}
    sizes = [size for part in lines.values() for size in part["bytes"]]
    low, high = min(sizes) / 1.6, max(sizes) * 1.6
    top = 1.42 * max((part["bytes"] / part["seconds.median"]).max() for part in lines.values())
    copies = _rates(ceilings, sweep, "copy", "stream-copy")
    edges = [low, *(caches[level] for level in LEVELS[:-1] if level in caches and low < caches[level] < high), high]
    names = [level for level in LEVELS if level in caches and caches[level] > low]
    names = [level for level in names if level == names[0] or edges[0] < caches[level]][: len(edges) - 1]
    names += ["DRAM"] if len(names) < len(edges) - 1 else []
    for place, (name, left, right) in enumerate(zip(names, edges, edges[1:], strict=False)):
        if place % 2 == 0:
            axes.axvspan(left, right, color=BAND, linewidth=0, zorder=0)
        axes.text(
            math.sqrt(left * right), 1.0, name, transform=axes.get_xaxis_transform(), ha="center", va="bottom", color=MUTED
        )
        if name in copies and copies[name] <= top:
            axes.hlines(copies[name], left, right, color=MUTED, linewidth=1.2, zorder=1)
        elif name in copies:
            above = f"↑ {units.rate(copies[name], 'B/s')}"
            axes.text(math.sqrt(left * right), top * 0.985, above, ha="center", va="top", color=MUTED, fontsize=8)
    for place, (name, part) in enumerate(lines.items()):
        rate = part["bytes"] / part["seconds.median"]
        gid = f"line-{place}"
        axes.plot(part["bytes"], rate, marker=look[name].marker, gid=gid, **_style(look[name]))
        titles[gid] = name
    axes.set(xscale="log", xlim=(low, high), ylim=(0, top))
    axes.set(xlabel="working set (inputs and outputs)", ylabel="achieved GB/s")
    axes.grid()
    _lengths(axes.xaxis, (low, high), units.size)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value / 1e9:g}")
    if set(RIVALS[0]) <= set(lines):
        _shade_lead(axes, [lines[name] for name in RIVALS[0]], [LIGHT[look[name].colour] for name in RIVALS[0]])
    found = crossover(sweep, RIVALS[0], *ORDER["throughput"])
    if found and 0 < found.length < math.inf:
        axes.axvline(found.bytes, ymax=0.92, color=INK, linewidth=1.0, linestyle=(0, (2, 2)), zorder=4)
        left_half = math.log(found.bytes / low) < 0.62 * math.log(high / low)
        text = f"two-pass ahead\nfrom n ≈ {rounded(found.length)}"
        axes.annotate(
            text,
            (found.bytes, 0.91),
            xycoords=axes.get_xaxis_transform(),
            xytext=(5 if left_half else -5, 0),
            textcoords="offset points",
            ha="left" if left_half else "right",
            va="top",
            fontweight="bold",
            bbox=BEHIND,
            zorder=5,
        )
    return titles


def _shade_lead(axes: Axes, rivals: Sequence[pd.DataFrame], colours: Sequence[str]) -> None:
    """Fill between two lines in the colour of the one that is ahead, changing where the drawn lines cross."""
    rates = []
    for part in rivals:
        rate = (part["bytes"] / part["seconds.median"]).set_axis(part["bytes"])
        rates.append(rate[~rate.index.duplicated()])
    both = sorted(set(rates[0].index) & set(rates[1].index))
    points = [(size, float(rates[0][size]), float(rates[1][size])) for size in both]
    filled = points[:1]
    for (x, first, second), (to_x, to_first, to_second) in zip(points, points[1:], strict=False):
        gap, to_gap = first - second, to_first - to_second
        if gap * to_gap < 0:
            share = gap / (gap - to_gap)
            height = first + share * (to_first - first)
            filled.append((x * (to_x / x) ** share, height, height))
        filled.append((to_x, to_first, to_second))
    sizes, one, other = ([point[column] for point in filled] for column in range(3))
    for ahead, behind, colour in ((one, other, colours[0]), (other, one, colours[1])):
        leads = [a >= b for a, b in zip(ahead, behind, strict=True)]
        axes.fill_between(sizes, ahead, behind, where=leads, color=colour, alpha=0.16, linewidth=0)


def rounded(value: float) -> str:
    """A length read off a chart: two significant digits."""
    return f"{float(f'{value:.2g}'):,.0f}"


def draw_latency(axes: Axes, sweep: Sweep, look: Mapping[str, Look]) -> dict[str, str]:
    """Time of a call over the length."""
    lines = sweep.lines(*ORDER["latency"])
    titles = {}
    for place, (name, part) in enumerate(lines.items()):
        gid = f"line-{place}"
        axes.plot(part[sweep.axis], part["seconds.median"], marker=look[name].marker, gid=gid, **_style(look[name]))
        titles[gid] = name
    axes.set(xscale="log", yscale="log", xlabel=f"length {sweep.axis[5:]}", ylabel="time of a call")
    axes.grid()
    _lengths(axes.xaxis, axes.get_xlim())
    _decades(axes.yaxis, "s")
    return titles


def _lengths_shown(lines: Mapping[str, pd.DataFrame], axis: str) -> list[float]:
    """At most four of the lengths, spread evenly, the longest among them."""
    every = sorted({n for part in lines.values() for n in part[axis] if n >= 1024}) or sorted(
        {n for part in lines.values() for n in part[axis]}
    )
    count = min(4, len(every))
    return [every[round(place * (len(every) - 1) / max(1, count - 1))] for place in range(count)]


def draw_roofline(axes: Axes, sweep: Sweep, ceilings: pd.DataFrame, look: Mapping[str, Look]) -> dict[str, str]:
    """flop/s over flop per byte as the algorithm moves them, under slanted memory roofs and flat arithmetic ones."""
    lines = {
        name: part[part["flops"].notna() & part["bytes"].notna()] for name, part in sweep.lines(*ORDER["roofline"]).items()
    }
    lines = {name: part for name, part in lines.items() if len(part)}
    shown = _lengths_shown(lines, sweep.axis)
    titles: dict[str, str] = {}
    columns: dict[float, int] = {}
    spots = []
    for place, (name, part) in enumerate(lines.items()):
        part = part[part[sweep.axis].isin(shown)]
        if not len(part):
            continue
        intensity = float((part["flops"] / part["moved_bytes"].fillna(part["bytes"])).median())
        neighbour = next((x for x in columns if abs(math.log(x / intensity)) < 0.03), intensity)
        columns[neighbour] = columns.get(neighbour, 0) + 1
        x = neighbour * 1.09 ** (columns[neighbour] - 1)
        speeds = part["flops"] / part["seconds.median"]
        axes.plot([x] * len(part), speeds, linewidth=0.8, color=LIGHT[look[name].colour], alpha=0.5, zorder=3)
        for row, (n, speed) in enumerate(zip(part[sweep.axis], speeds, strict=True)):
            size = 3.0 + 1.5 * shown.index(n)
            gid = f"point-{place}-{row}"
            record = part.iloc[row]
            hollow = "none" if look[name].dash else LIGHT[look[name].colour]
            axes.plot(
                [x],
                [speed],
                look[name].marker,
                markersize=size,
                color=LIGHT[look[name].colour],
                markerfacecolor=hollow,
                gid=gid,
                zorder=4,
            )
            roof = record["roof.seconds"] / record["seconds.median"]
            titles[gid] = (
                f"{name}, n = {int(n):,}: {units.seconds(record['seconds.median'])}, {units.percent(roof)} of its roof"
            )
            spots.append((x, speed, n))
    low_x, high_x = min(x for x, _, _ in spots) / 2.2, max(x for x, _, _ in spots) * 7
    memory = _rates(ceilings, sweep, "copy", "stream-copy")
    flat = _flat_roofs(lines, ceilings, sweep)
    top = max([y for y, _ in flat] + [y for _, y, _ in spots]) * 1.7
    bottom = min(y for _, y, _ in spots) / 2
    axes.set(xscale="log", yscale="log", xlim=(low_x, high_x), ylim=(bottom, top))
    axes.set(xlabel="flop per byte, as the algorithm moves them", ylabel="Gflop/s")
    compute = max((y for y, _ in flat), default=top)
    box = axes.bbox
    angle = math.degrees(math.atan(box.height / math.log10(top / bottom) / (box.width / math.log10(high_x / low_x))))
    slowest_first = sorted(memory.items(), key=lambda item: item[1])
    for (level, rate), (_, above) in zip(slowest_first, [*slowest_first[1:], ("", math.inf)], strict=True):
        left, right = max(low_x, bottom / rate), min(high_x, compute / rate)
        axes.plot([left, right], [rate * left, rate * right], color=MUTED, linewidth=1.1, zorder=1)
        # Below its line where the next one would cross it.
        near = math.log(above / rate) < 14 * math.log(top / bottom) / box.height
        slanted: dict[str, Any] = {"rotation": angle, "rotation_mode": "anchor", "va": "top" if near else "bottom"}
        start, text = left * 1.06, f"{level} {units.rate(rate, 'B/s')}"
        axes.text(start, start * rate * (0.96 if near else 1.05), text, color=MUTED, fontsize=8, **slanted)
    for height, label in flat:
        slowest = max(memory.values(), default=height / low_x)
        axes.plot([max(low_x, height / slowest), high_x], [height, height], color=MUTED, linewidth=1.1, zorder=1)
        axes.text(high_x / 1.04, height * 1.04, label, ha="right", va="bottom", color=MUTED, fontsize=8, bbox=BEHIND, zorder=2)
    _label_lengths(axes, spots, math.log(top / bottom) / box.height)
    axes.grid()
    _decades(axes.xaxis, "")
    _decades(axes.yaxis, "", 1e-9)
    return titles


def _label_lengths(axes: Axes, spots: Sequence[tuple[float, float, float]], per_point: float) -> None:
    """Lengths beside the rightmost marks, the longest first, leaving out what would cover another."""
    x = max(x for x, _, _ in spots)
    taken: list[float] = []
    for _, speed, n in sorted((spot for spot in spots if spot[0] == x), key=lambda spot: -spot[2]):
        if all(abs(math.log(speed / other)) > 11 * per_point for other in taken):
            taken.append(speed)
            text = f"n = {units.length(n)}"
            axes.annotate(
                text, (x, speed), xytext=(8, 0), textcoords="offset points", va="center", fontsize=8, bbox=BEHIND, zorder=3
            )


def _flat_roofs(lines: Mapping[str, pd.DataFrame], ceilings: pd.DataFrame, sweep: Sweep) -> list[tuple[float, str]]:
    """Arithmetic roofs in flop/s with their labels; the exponential's depends on how many an algorithm evaluates."""
    roofs = []
    fma = max(_rates(ceilings, sweep, "fma").values(), default=0.0)
    if fma:
        roofs.append((fma, f"FMA {units.rate(fma, 'flop/s')}"))
    exp = max(_rates(ceilings, sweep, "exp").values(), default=0.0)
    every = pd.concat(list(lines.values()))
    per_exp = sorted({round(ratio, 3) for ratio in every["flops"] / every["exps"] if 0 < ratio < math.inf}, reverse=True)
    for ratio in per_exp[:2] if exp else []:
        times = per_exp[0] / ratio
        label = f"exp {units.rate(exp, 'exp/s')}" if times == 1 else f"exp, evaluated {times:g} times"
        roofs.append((exp * ratio, label))
    return roofs


def chart(kind: str, sweep: Sweep, caches: Mapping[str, int], ceilings: pd.DataFrame, look: Mapping[str, Look]) -> str:
    """One chart of a sweep as inline SVG: ``roofline``, ``throughput`` or ``latency``."""
    import matplotlib

    with matplotlib.rc_context(SETTINGS):
        figure, (axes,) = _figure(head=0.07 if kind == "throughput" else 0.03)
        if kind == "roofline":
            titles = draw_roofline(axes, sweep, ceilings, look)
        elif kind == "throughput":
            titles = draw_throughput(axes, sweep, caches, ceilings, look)
        else:
            titles = draw_latency(axes, sweep, look)
    return _svg(figure, f"{kind}-{sweep.name}", titles, f"{kind} of {sweep.label}")


def draw_history(axes: Axes, history: History, look: Mapping[str, Look]) -> dict[str, str]:
    """A quantity over commits: points, the level of each piece, and the band that points stay in when nothing changes."""
    titles = {}
    finite = []
    for number, series in enumerate(history.lines(list(look))):
        style, gid = _style(look[series.implementation]), f"line-{number}"
        points = [(place, value) for place, value in zip(series.places, series.values, strict=True) if 0 < value < math.inf]
        if not points:
            continue
        finite += [value for _, value in points]
        axes.plot(*zip(*points, strict=True), **{**style, "linewidth": 0.7}, marker=look[series.implementation].marker, gid=gid)
        titles[gid] = series.implementation
        levels = [each for each in series.levels if each[2] < 1e12]
        for begin, end, level in levels:
            ends = [series.places[begin] - 0.4, series.places[end] + 0.4]
            axes.plot(ends, [level, level], color=style["color"], linewidth=2.0, alpha=0.75)
            axes.fill_between(ends, level / series.band, level * series.band, color=style["color"], alpha=0.14, linewidth=0)
    steps = (step for series in history.lines(list(look)) for step in series.steps)
    for step in sorted(steps, key=lambda step: -step.change)[:4]:
        if max(step.before, step.after) >= 1e12:
            continue
        axes.annotate(
            f"{100 * (step.after / step.before - 1):+.3g}%",
            (step.place - 0.5, step.after),
            xytext=(0, 9 if step.after > step.before else -9),
            textcoords="offset points",
            ha="center",
            va="bottom" if step.after > step.before else "top",
            fontsize=8,
            fontweight="bold",
            bbox=BEHIND,
        )
    every = max(1, math.ceil(len(history.commits) / 7))
    axes.set_xticks(range(0, len(history.commits), every), [commit[:7] for commit, _ in history.commits[::every]])
    axes.set(xlim=(-0.6, len(history.commits) - 0.4), xlabel="commit, oldest first", yscale="log")
    if finite:
        axes.set_ylim(min(finite) / 1.25, max(finite) * 1.25)
    axes.grid(axis="y")
    _decades(axes.yaxis, "s" if history.quantity == "time" else "")
    return titles


def history_chart(history: History, look: Mapping[str, Look], name: str) -> str:
    """One workload over commits as inline SVG."""
    import matplotlib

    with matplotlib.rc_context(SETTINGS):
        figure, (axes,) = _figure(head=0.03)
        titles = draw_history(axes, history, look)
    return _svg(figure, name, titles, f"{history.quantity} of {history.operator}, {history.label}, over commits")


def verdict_chart(rows: Sequence[Mapping[str, Any]], margin: float, look: Mapping[str, Look], name: str) -> str:
    """The paired ratio of each workload as inline SVG: a dot each restart, a bar the interval; in grey base and its copy."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    widest = max(abs(math.log(end)) for row in rows for end in (row["ratio"]["low"], row["ratio"]["high"]))
    reach = 1.08 * min(max(widest, 2 * math.log1p(margin)), 2.0)
    titles = {}
    with matplotlib.rc_context(SETTINGS):
        height = 0.3 * len(rows) + 0.55
        figure = Figure(figsize=(8.4, height))
        figure.subplots_adjust(0.48, 0.42 / height, 0.98, 1 - 0.1 / height)
        axes = figure.subplots()
        axes.axvspan(-math.log1p(margin), math.log1p(margin), color=BAND, linewidth=0, zorder=0)
        axes.axvline(0, color=MUTED, linewidth=0.8, zorder=1)
        for place, row in enumerate(rows):
            colour = LIGHT[look[row["implementation"]].colour]
            marks = (
                (row["twin"], row["twin_ratios"], MUTED, 0.22, ""),
                (row["ratio"], row["ratios"], colour, -0.08, row["name"]),
            )
            for ratio, dots, shade, shift, title in marks:
                if not ratio:
                    continue
                low, middle, high = (max(-reach, min(reach, math.log(ratio[each]))) for each in ("low", "estimate", "high"))
                y, thick = place + shift, 2.2 if title else 1.0
                axes.plot([low, high], [y, y], color=shade, linewidth=thick, solid_capstyle="butt", zorder=3)
                size, gid = (4.5, f"workload-{place}") if title else (2.5, None)
                axes.plot([middle], [y], "|", color=shade, markersize=2 * size, markeredgewidth=1.5, gid=gid, zorder=4)
                shown = [math.log(dot) for dot in dots if abs(math.log(dot)) <= reach]
                axes.plot(shown, [y] * len(shown), "o", color=shade, markersize=2, alpha=0.45, linestyle="", zorder=2)
                if title and gid:
                    titles[gid] = f"{title}, {row['where']}: {ratio['words']} ({ratio['range']}), {row['said']}"
        labels = [f"{row['name']} {row['where']}" for row in rows]
        axes.set_yticks(range(len(rows)), [label if len(label) < 60 else label[:58] + "…" for label in labels], fontsize=7.5)
        axes.set(xlim=(-reach, reach), ylim=(len(rows) - 0.4, -0.6), xlabel="head's time over base's")
        percents = MaxNLocator(7, steps=(1, 2, 5, 10)).tick_values(100 * math.expm1(-reach), 100 * math.expm1(reach))
        inside = [each for each in percents if each > -100 and abs(math.log1p(each / 100)) <= reach]
        axes.set_xticks([math.log1p(each / 100) for each in inside], [f"{each:+.3g}%" if each else "0" for each in inside])
        axes.grid(axis="x")
        axes.spines["left"].set_visible(False)
    return _svg(figure, name, titles, "time of head over time of base, by workload")


def roofline(runs: pd.DataFrame, operators: Sequence[str] = (), fmt: str = "svg") -> bytes:
    """The rooflines of ``operators`` (all, when none is named) as one SVG or PNG that stands alone.

    Raises ``ValueError`` for another format, an operator that no record names, or when no operator has three lengths timed.
    """
    import matplotlib
    from matplotlib.lines import Line2D

    if fmt not in ("svg", "png"):
        raise ValueError(f"can't draw a roofline as {fmt!r}; the formats are svg and png")
    known = list(dict.fromkeys(runs["operator"].dropna()))
    for operator in operators:
        if operator not in known:
            raise ValueError(f"no record of operator {operator!r}; there are {', '.join(known) or 'none'}")
    chosen = [sweep for sweep in sweeps(runs) if not operators or sweep.operator in operators]
    if not chosen:
        raise ValueError("nothing to draw: a roofline needs times at three lengths of one operator")
    look = looks(runs["implementation"].dropna())
    ceilings = runs[runs["kind"] == "ceiling"]
    columns = min(2, len(chosen))
    with matplotlib.rc_context(SETTINGS):
        figure, panels = _figure(6.0, 4.4, columns, math.ceil(len(chosen) / columns))
        for axes in panels[len(chosen) :]:
            axes.remove()
        for axes, sweep in zip(panels, chosen, strict=False):
            draw_roofline(axes, sweep, ceilings, look)
            axes.set_title(sweep.label, fontsize=9, loc="left")
            handles = [
                Line2D([], [], marker=look[name].marker, label=name, **_style(look[name]))
                for name in sweep.lines(*ORDER["roofline"])
            ]
            axes.legend(handles=handles, fontsize=7, frameon=False, loc="lower right")
    with matplotlib.rc_context({**SETTINGS, "svg.hashsalt": "roofline"}):
        buffer = io.BytesIO()
        metadata = {"Date": None, "Creator": None} if fmt == "svg" else {"Software": None}
        figure.savefig(buffer, format=fmt, dpi=144, facecolor="white", metadata=metadata)
    return buffer.getvalue()
