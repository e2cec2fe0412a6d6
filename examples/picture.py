"""What the demo shows: both acts side by side while they run, plain lines if there is no terminal, and a table."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from .act import ACT_S, PHASE_S, RATES, Act

#: Starts per second at the top of a chart, and the smallest terminal that the picture fits in.
TOP = 400
NARROWEST, LOWEST = 80, 24

EIGHTHS = " ▁▂▃▄▅▆▇█"
WITHIN, BEYOND, LIMIT, QUIET = "green", "bold red", "yellow", "dim"


HEADINGS = ("declared", "measured", "busiest\nsecond", "worst\nwindow", "Redis calls\nper start", "slots\nused")


class Picture:
    """Shows the acts for as long as it is open.

    Args:
        console: where to.
        acts: what.
        workers: the names of the workers.
    """

    def __init__(self, console: Console, acts: Sequence[Act], workers: Sequence[str]) -> None:
        self._acts = acts
        self._workers = workers
        self._console = console
        self._lines: set[str] = set()
        fits = console.width >= NARROWEST and console.height >= LOWEST
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal and fits else None

    def __enter__(self) -> Picture:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._live:
            self._live.stop()

    def show(self, act: Act) -> None:
        """Show how far an act is: the picture again, or a line for each second and each change of what goes on."""
        if self._live:
            self._live.update(self._draw(), refresh=True)
            return
        key = f"{act.title} {act.status} {int(act.elapsed_s)}"
        if key not in self._lines:
            self._lines.add(key)
            self._console.print(plain_line(act, self._workers), soft_wrap=True)

    def _draw(self) -> RenderableType:
        width, height = self._console.size
        panel = min((width - 4) // 2, 60)  # the terminal writes ^C behind the last line, which must not wrap
        rows = 16 if height >= 30 else 8
        columns = (panel - 10) // 2 * 2  # even: the change falls between two columns
        return Columns(
            [
                Panel(
                    Group(chart(act, columns, rows), *worker_bars(act, self._workers, columns)),
                    title=act.title,
                    subtitle=act.status,
                    width=panel,
                    border_style="" if act.began else QUIET,
                )
                for act in self._acts
            ],
            padding=0,
        )


def plain_line(act: Act, workers: Sequence[str]) -> str:
    """An act in one line."""
    if act.began is None or not act.phases:
        return f"{act.title}: {act.status}"
    shares = act.shares()
    each = "  ".join(f"{worker} {shares[worker]}" for worker in workers)
    rate = act.phases[-1].rate
    return f"{act.title}: {act.elapsed_s:4.1f} s, limit {rate}/s, last second {sum(shares.values()):3}  ({each})"


def chart(act: Act, columns: int, rows: int) -> Text:
    """Starts per second over time. If a column holds more than the promise, what lies above the limit is red."""
    bin_s = ACT_S / columns
    per_row = TOP / rows
    rates, broken = [], []
    for column in range(columns):
        begin = (act.began or 0.0) + column * bin_s
        seen = act.began is not None and (column + 1) * bin_s <= act.elapsed_s + 1e-9
        count = act.started(begin, begin + bin_s) if seen else 0
        phase = act.phases[min(int(column * bin_s // PHASE_S), len(act.phases) - 1)] if act.phases else None
        rates.append(count / bin_s)
        broken.append(phase is not None and count > act.allowed(phase, bin_s))
    text = Text(no_wrap=True)
    for row in reversed(range(rows)):
        floor = row * per_row
        text.append(f"{floor:4.0f} " if row and floor % 100 == 0 else "     ", QUIET)
        for column in range(columns):
            limit = RATES[int(column * bin_s // PHASE_S)]
            eighths = max(0, min(8, int((rates[column] - floor) / per_row * 8)))
            if floor == limit and not (broken[column] and eighths):
                text.append("▁", LIMIT)
            else:
                text.append(EIGHTHS[eighths], BEYOND if floor >= limit and broken[column] else WITHIN)
        text.append("\n")
    half = columns // 2
    last = f"{ACT_S:.0f} s"
    text.append(f"     {'0':<{half}}{PHASE_S:<{half - len(last)}.0f}{last}\n", QUIET)
    return text


def worker_bars(act: Act, workers: Sequence[str], width: int) -> list[Text]:
    """Starts in the last second: of the cluster against its limit, and of each worker."""
    shares = act.shares() if act.phases else {}
    rate = act.phases[-1].rate if act.phases else RATES[0]
    heading = Text(f"     last second {sum(shares.values())}, limit ", no_wrap=True)
    lines = [heading.append(str(rate), LIMIT)]
    room = width - 5
    for worker in workers:
        count = shares.get(worker, 0)
        line = Text(f"{worker:>4} ", QUIET, no_wrap=True)
        line.append("█" * min(room, round(room * count / rate)), WITHIN)
        lines.append(line.append(f" {count}", ""))
    return lines


def results(acts: Sequence[Act]) -> Table:
    """The final table: a row for each act and phase."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("", no_wrap=True)
    for heading in HEADINGS:
        table.add_column(heading, justify="right", no_wrap=True)
    for act in acts:
        for index, phase in enumerate(act.phases):
            result = act.result(phase)
            kept = result.excess <= 0
            window = f"{-result.excess:.1f} under" if kept else f"{result.excess:.0f} over"
            table.add_row(
                "" if index else act.title,
                f"{phase.rate}/s",
                f"{result.measured:.1f}/s",
                f"{result.most} of {result.promised:.0f}",
                Text(window, WITHIN if kept else BEYOND),
                f"{result.calls:.2f}" if act.extension else "-",
                f"{result.used:.1%}",
                end_section=phase is act.phases[-1],
            )
    return table
