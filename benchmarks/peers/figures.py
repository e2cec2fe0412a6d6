"""What `make peers` has measured, as a table and a chart of the documentation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from testbed.server import root

from .run import RATE, RUN_S, WORKERS

PAGE = root() / "docs" / "comparison.inc"
CHART = root() / "docs" / "comparison.png"
OURS = "celery-global-rate"
HEADER = [
    *("what", "of the rate", "most in 1 s", "limiter", "broker"),
    *("CPU", "retries", "lost", "behind it", "beside it"),
]


def draw(report: dict[str, Any]) -> None:
    """Write the page of the documentation and the chart.

    Args:
        report: what `benchmarks/peers.json` holds.
    """
    PAGE.write_text(page(report))
    chart(report["peers"], CHART)


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
    """A simple table in reStructuredText."""
    rows = [HEADER, *map(row, peers)]
    widths = [max(len(line[column]) for line in rows) for column in range(len(HEADER))]
    rule = "  ".join("=" * width for width in widths)
    head, *body = ("  ".join(f"{text:{width}}" for text, width in zip(line, widths)).rstrip() for line in rows)
    return "\n".join([rule, head, rule, *body, rule]) + "\n"


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


def chart(peers: list[dict[str, Any]], path: Path) -> None:
    """Share of the rate, the fullest second, and CPU for each of them.

    Args:
        peers: of the report.
        path: of the PNG.
    """
    import matplotlib as mpl  # an extra: only this picture needs it

    mpl.use("agg")
    import matplotlib.pyplot as plt

    titles = [peer["title"] for peer in peers]
    colours = ["tab:blue" if title == OURS else "tab:grey" for title in titles]
    figure, panels = plt.subplots(1, 3, figsize=(11, 0.36 * len(peers) + 1.2), sharey=True)
    columns = [
        ("share", "share of the rate that is used", 1.0, "linear"),
        ("most", "starts in the fullest second", RATE, "log"),
        ("cpu_ms", "CPU for each start, ms", None, "linear"),
    ]
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
