"""The results of tasks are kept. To be included beside `benchmarks.app`, which ignores them."""

from benchmarks.app import limited

limited.ignore_result = False
