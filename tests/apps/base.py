"""A class for all tasks of an application, with a rate."""

from celery import Task


class Base(Task):
    """For `Celery(task_cls=...)`."""

    rate_limit = "1/m"
