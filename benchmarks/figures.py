"""What `make bench` has measured, as the README's table, the page of the documentation, and its chart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from celery_global_rate.limits.limit import Limit
from testbed.server import root

README = root() / "README.rst"
PAGE = root() / "docs" / "benchmarks.inc"
CHART = root() / "docs" / "benchmarks.png"
BEGIN, END = ".. measured: begin\n", ".. measured: end\n"
#: The README shows these; the documentation shows all.
SHORT = [("7/s", 4), ("100/s", 4), ("100/s", 10), ("500/s", 4), ("500/s", 10), ("1000/s", 2), ("1000/s", 10)]
HEADER = ["limit", "workers", "starts/s here", "stock", "worst window here", "stock", "Redis calls per start"]


def draw(report: dict[str, Any]) -> None:
    """Write the table of the README, the page of the documentation and the chart.

    Args:
        report: what `benchmarks/report.json` holds.
    """
    before, rest = README.read_text().split(BEGIN)
    _, after = rest.split(END)
    README.write_text(before + BEGIN + section(report) + END + after)
    PAGE.write_text(page(report))
    chart(cells_of(report), CHART)


def cells_of(report: dict[str, Any]) -> list[dict[str, Any]]:
    """All loads that were measured here and on stock Celery."""
    return [cell for part in ("rates", "slow", "fast") for cell in report.get(part, [])]


def section(report: dict[str, Any]) -> str:
    """What the README shows between its markers."""
    cells = [cell for cell in cells_of(report) if (cell["here"]["rate"], cell["here"]["workers"]) in SHORT]
    return f"\n{introduction(report)}\n{grid(cells)}\n"


def introduction(report: dict[str, Any]) -> str:
    """What was measured on what."""
    machine, parts = report["machine"], list(report["commits"].values())
    commits = " to ".join(dict.fromkeys([parts[0], parts[-1]]))
    return (
        f"Measured on {machine['cores']} shared cores ({machine['processor']}) with Python {machine['python']}, "
        f"Celery {machine['celery']}, kombu {machine['kombu']}, redis-py {machine['redis']}, {machine['server']}, "
        f"commit {commits}: a backlog, prefork workers of two processes, 30 s or more here "
        "and 10 s or more on stock Celery.\n"
        "The worst window is the one with the most releases against the promise; at 0 or below, the promise holds.\n"
    )


def grid(cells: list[dict[str, Any]]) -> str:
    """A simple table in reStructuredText."""
    rows = [HEADER, *(row(cell) for cell in cells)]
    widths = [max(len(line[column]) for line in rows) for column in range(len(HEADER))]
    rule = "  ".join("=" * width for width in widths)
    head, *body = ("  ".join(f"{text:{width}}" for text, width in zip(line, widths)).rstrip() for line in rows)
    return "\n".join([rule, head, rule, *body, rule]) + "\n"


def row(cell: dict[str, Any]) -> list[str]:
    """One line of it."""
    here, stock = cell["here"], cell["stock"]
    calls = here["calls_per_s"] * here["workers"] / max(here["starts_per_s"], 1e-9)
    return [
        here["rate"],
        str(here["workers"]),
        f"{here['starts_per_s']:.{2 if here['starts_per_s'] > 0.1 else 4}f}",
        f"{stock['starts_per_s']:.3g}",
        f"{here['release_excess']:+.2f}",
        f"{stock['release_excess']:+.2f}",
        f"{calls:.2g}",
    ]


def page(report: dict[str, Any]) -> str:
    """The text of docs/benchmarks.inc."""
    lines = [introduction(report), grid(cells_of(report))]
    for cell in report["fast"]:
        here = cell["here"]
        lines.append(
            f"* {here['rate']} with {here['workers']} workers: {here['starts_per_s']:.0f} starts a second; "
            f"without a limit the same workers do {cell['unlimited']:.0f}."
        )
    for cell, workers in zip(report["overhead"], ("one worker", "two workers")):
        pairs = ", ".join(f"{limited:.0f} of {unlimited:.0f}" for limited, unlimited in cell["pairs"])
        lines.append(
            f"* A limit of 100000/s, which nobody reaches, leaves {workers} {cell['ratio']:.3f} of the starts without "
            f"a limit on stock Celery: {pairs} a second."
        )
    return "\n".join(lines) + "\n"


def chart(cells: list[dict[str, Any]], path: Path) -> None:
    """Share of the declared rate and worst window, here and on stock Celery, for each cell.

    Args:
        cells: of the report.
        path: of the PNG.
    """
    import matplotlib as mpl  # an extra: only this picture needs it

    mpl.use("agg")
    import matplotlib.pyplot as plt

    labels = [f"{cell['here']['rate']}, workers: {cell['here']['workers']}" for cell in cells]
    figure, (share, window) = plt.subplots(1, 2, figsize=(10, 0.3 * len(cells) + 1.5), sharey=True)
    for name, style in (("stock", {"marker": "s", "color": "tab:red", "mfc": "none"}), ("here", {"marker": "o"})):
        runs = [cell[name] for cell in cells]
        line = {"linestyle": "none", "label": {"stock": "stock Celery", "here": "celery-global-rate"}[name], **style}
        share.plot([run["starts_per_s"] / per_second(run["rate"]) for run in runs], labels, **line)
        window.plot([run["release_excess"] for run in runs], labels, **line)
    share.axvline(1, color="grey", lw=0.8)
    share.set(xscale="log", xlabel="starts per second / declared rate")
    window.axvline(0, color="grey", lw=0.8)
    window.set_xscale("symlog", linthresh=10)
    window.margins(x=0.1)
    window.set_xlabel("releases beyond the promise in the worst window")
    share.invert_yaxis()
    figure.legend(*share.get_legend_handles_labels(), loc="upper center", ncols=2, frameon=False)
    figure.tight_layout(rect=(0, 0, 1, 0.93))
    figure.savefig(path, dpi=120, metadata={"Software": None})
    plt.close(figure)


def per_second(rate: str) -> float:
    """Starts per second of a declared rate."""
    limit = Limit.parse(rate)
    assert limit is not None
    return limit.per_second
