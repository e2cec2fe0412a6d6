"""Celery's own integration tests, on stock Celery and with a limit on every task: what comes out must be the same."""
