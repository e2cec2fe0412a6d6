"""What `make peers` has measured, as a table and a chart of the documentation."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional

from testbed.server import root

from .calls import LOADS
from .run import RATE, RUN_S, WORKERS

PAGE = root() / "docs" / "comparison.inc"
CHART = root() / "docs" / "comparison.png"
LIMITERS_PAGE = root() / "docs" / "limiters.inc"
LIMITERS_CHART = root() / "docs" / "limiters.png"
OURS = "celery-global-rate"
#: A figure, its label, the value that is meant, if there is one, and the scale.
Column = tuple[str, str, Optional[float], str]
HEADER = [
    *("what", "of the rate", "most in 1 s", "limiter", "broker"),
    *("CPU", "retries", "lost", "behind it", "beside it"),
]
LIMITERS_HEADER = ["what", "of the rate", "most in 1 s", "none for", "fewest", "writes", "commands", "CPU"]


def draw(report: dict[str, Any]) -> None:
    """Write the page of the documentation and the chart.

    Args:
        report: what `benchmarks/peers.json` holds.
    """
    PAGE.write_text(page(report))
    columns: list[Column] = [
        ("share", "share of the rate that is used", 1.0, "linear"),
        ("most", "starts in the fullest second", RATE, "log"),
        ("cpu_ms", "CPU for each start, ms", None, "linear"),
    ]
    chart(report["peers"], columns, CHART)


def draw_limiters(report: dict[str, Any]) -> None:
    """Write what `docs/comparison.rst` includes of libraries without Celery, and the chart.

    Args:
        report: what `benchmarks/limiters.json` holds.
    """
    LIMITERS_PAGE.write_text(limiters_page(report))
    many = [it for it in report["limiters"] if it["callers"] == LOADS[-1]]
    columns: list[Column] = [
        ("share", "share of the rate", 1.0, "linear"),
        ("most", "most turns in a second", RATE, "linear"),
        ("sent", "writes for each turn", None, "linear"),
        ("cpu_ms", "CPU for each turn, ms", None, "linear"),
    ]
    chart(many, columns, LIMITERS_CHART)


def limiters_page(report: dict[str, Any]) -> str:
    """The text of docs/limiters.inc: a table for each load."""
    machine, found = report["machine"], report["limiters"]
    versions = sorted({it["package"].replace("==", " ") for it in found if it["package"]})
    head = (
        f"Measured on {machine['cores']} shared cores ({machine['processor']}) with Python {machine['python']}, "
        f"redis-py {machine['redis']}, {machine['server']}; {', '.join(versions)}.\n"
    )
    parts = []
    for callers in LOADS:
        load = "One caller" if callers == 1 else f"{callers} callers"
        rows = [limiter_row(it) for it in found if it["callers"] == callers]
        parts.append(f"{load} in each process:\n\n{table(LIMITERS_HEADER, rows)}")
    return "\n".join([head, *parts])


def limiter_row(figures: dict[str, Any]) -> list[str]:
    """One line of it."""
    return [
        figures["title"],
        f"{figures['share']:.3f}",
        str(figures["most"]),
        f"{figures['longest_s']:.2f} s",
        f"{figures['least']:.2f}",
        f"{figures['sent']:.1f}",
        f"{figures['commands']:.1f}",
        f"{figures['cpu_ms']:.2f} ms",
    ]


def page(report: dict[str, Any]) -> str:
    """The text of docs/comparison.inc."""
    machine, peers = report["machine"], report["peers"]
    versions = ", ".join(peer["package"].replace("==", " ") for peer in peers if peer["package"])
    return (
        f"Measured on {machine['cores']} shared cores ({machine['processor']}) with Python {machine['python']}, "
        f"Celery {machine['celery']}, kombu {machine['kombu']}, redis-py {machine['redis']}, {machine['server']}; "
        f"{versions}.\n"
        f"{WORKERS} prefork workers of two processes, a limit of {RATE}/s, tasks of {RUN_S * 1000:.0f} ms.\n\n"
        f"{grid(peers)}"
    )


def grid(peers: list[dict[str, Any]]) -> str:
    """The table of what was measured with Celery."""
    return table(HEADER, [row(peer) for peer in peers])


def table(header: list[str], body: list[list[str]]) -> str:
    """A simple table in reStructuredText."""
    rows = [header, *body]
    widths = [max(len(line[column]) for line in rows) for column in range(len(header))]
    rule = "  ".join("=" * width for width in widths)
    head, *lines = ("  ".join(f"{text:{width}}" for text, width in zip(line, widths)).rstrip() for line in rows)
    return "\n".join([rule, head, rule, *lines, rule]) + "\n"


def row(peer: dict[str, Any]) -> list[str]:
    """One line of it."""
    return [
        peer["title"],
        f"{peer['share']:.3f}",
        str(peer["most"]),
        f"{peer['limiter_calls']:.1f}",
        f"{peer['broker_calls']:.1f}",
        f"{peer['cpu_ms']:.1f} ms",
        f"{peer['retries']:.1f}",
        str(peer["lost"]),
        *map(waited, (peer["behind_s"], peer["beside_s"]), peer["free_left"]),
    ]


def waited(median_s: float | None, left: int) -> str:
    """How long tasks without a limit wait, and how many did to the end."""
    return "all left" if median_s is None else f"{median_s:.2f} s" + (f", {left} left" if left else "")


def chart(peers: list[dict[str, Any]], columns: list[Column], path: Path) -> None:
    """Some figures of each of them, side by side.

    Args:
        peers: of the report.
        columns: the figures.
        path: of the PNG.
    """
    import matplotlib as mpl  # an extra: only this picture needs it

    mpl.use("agg")
    import matplotlib.pyplot as plt

    titles = [peer["title"] for peer in peers]
    colours = ["tab:blue" if title.startswith(OURS) else "tab:grey" for title in titles]
    figure, panels = plt.subplots(1, len(columns), figsize=(11, 0.36 * len(peers) + 1.2), sharey=True)
    for panel, (name, label, bound, scale) in zip(panels, columns):
        bars = panel.barh(titles, [peer[name] for peer in peers], color=colours)
        panel.bar_label(bars, fmt="%.3g", padding=3, fontsize=8)
        if bound:
            panel.axvline(bound, color="tab:red", lw=0.8)
        panel.set(xscale=scale, xlabel=label)
        panel.margins(x=0.2)
    panels[0].invert_yaxis()
    figure.tight_layout()
    figure.savefig(path, dpi=120, metadata={"Software": None})
    plt.close(figure)
