"""The results of tasks are kept. To be included beside `testbed.app`, which ignores them."""

from testbed.app import limited

limited.ignore_result = False
