"""Import this to switch on every worker of the process.

By `celery worker -I celery_global_rate.auto`, by `CELERY_WORKER_INCLUDE`, or by `imports` in the configuration.
"""

from . import activation

activation.on_in_every_worker = True
