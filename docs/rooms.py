"""Which room of the package may use which: the table that the tests hold the imports to, and the drawing of it.

``python docs/rooms.py`` writes ``docs/rooms.svg``.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

#: The modules on top, in two layers: what a worker reads, and what people import.
TOP = {
    "settings": ("settings", "declared_limits", "named_buckets", "redis_discovery", "task_routes", "version"),
    "face": ("__init__", "activation", "auto"),
}

#: What each room may use. Those below come first, and know nothing of those above.
ROOMS: dict[str, set[str]] = {
    "limits": set(),
    "scheduling": {"limits"},
    "storage": {"limits"},
    "feedback": {"limits"},
    "broker": {"limits", "scheduling"},
    "settings": {"limits", "storage", "feedback"},
    "worker": {"limits", "scheduling", "storage", "feedback", "broker", "settings"},
    "client": {"limits", "scheduling", "storage", "feedback", "settings"},
    "face": {"limits", "feedback", "settings", "worker", "client"},
    "cli": {"limits", "storage", "settings", "worker", "face"},
}

#: What each room is for, in the drawing.
PURPOSE = {
    "limits": "values: limit, slots, time, override",
    "scheduling": "when a held task starts",
    "storage": "what Redis keeps, and how it is reached",
    "feedback": "what an API answers",
    "broker": "what held messages need",
    "settings": "what the application says",
    "worker": "the seam with Celery's worker",
    "client": "the same limits outside a worker",
    "face": "what people import",
    "cli": "what people type",
}

WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN = 250, 54, 40, 46, 20


def floors() -> list[list[str]]:
    """The rooms by floor: each one stands above all that it uses."""
    level: dict[str, int] = {}
    for room, below in ROOMS.items():
        level[room] = max((level[it] + 1 for it in below), default=0)
    return [[room for room in ROOMS if level[room] == floor] for floor in range(max(level.values()) + 1)]


def drawing() -> str:
    """The rooms as SVG, the highest on top, with an arrow to each that is used and not reached by way of another."""
    levels = floors()
    width = max(map(len, levels)) * (WIDTH + GAP_X) - GAP_X + 2 * MARGIN
    height = len(levels) * (HEIGHT + GAP_Y) - GAP_Y + 2 * MARGIN
    place: dict[str, tuple[float, float]] = {}
    for floor, rooms in enumerate(reversed(levels)):
        left = (width - len(rooms) * (WIDTH + GAP_X) + GAP_X) / 2
        place.update(
            {room: (left + n * (WIDTH + GAP_X), MARGIN + floor * (HEIGHT + GAP_Y)) for n, room in enumerate(rooms)}
        )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif">',
        '<defs><marker id="tip" markerWidth="9" markerHeight="8" refX="8" refY="4" orient="auto">'
        '<path d="M0,0 L9,4 L0,8 z" fill="#666"/></marker></defs>',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    for room, below in ROOMS.items():
        x, y = place[room]
        for used in sorted(below - set().union(*(ROOMS[it] for it in below))):
            to_x, to_y = place[used]
            parts.append(
                f'<line x1="{x + WIDTH / 2:.0f}" y1="{y + HEIGHT:.0f}" x2="{to_x + WIDTH / 2:.0f}" y2="{to_y - 2:.0f}" '
                'stroke="#666" marker-end="url(#tip)"/>'
            )
    for room, (x, y) in place.items():
        parts += [
            f'<rect x="{x:.0f}" y="{y:.0f}" width="{WIDTH}" height="{HEIGHT}" rx="6" fill="#eef4ee" stroke="#486"/>',
            f'<text x="{x + WIDTH / 2:.0f}" y="{y + 22:.0f}" text-anchor="middle" font-weight="bold">{room}</text>',
            f'<text x="{x + WIDTH / 2:.0f}" y="{y + 42:.0f}" text-anchor="middle" font-size="12">'
            f"{escape(PURPOSE[room])}</text>",
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    (Path(__file__).parent / "rooms.svg").write_text(drawing())
