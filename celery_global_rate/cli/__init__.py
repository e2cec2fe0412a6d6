"""`celery worker --global-rate` and `celery global-rate`."""
