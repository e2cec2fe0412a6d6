"""A task that writes down how its process shows what the extension and redis-py are made of.

To be included beside `testbed.app`, in a worker whose pool is solo.
"""

from __future__ import annotations

import gc
from functools import partial
from pathlib import Path

from testbed.app import SETUP, app

FILE = Path(SETUP["records"]).parent / "reprs"


@app.task(name="reprs")
def reprs() -> None:
    things = [
        thing
        for thing in gc.get_objects()
        if type(thing).__module__.partition(".")[0] in ("celery_global_rate", "redis") or isinstance(thing, partial)
    ]
    begun = FILE.with_suffix(".begun")
    begun.write_text("\n".join(map(repr, things)))
    begun.rename(FILE)
