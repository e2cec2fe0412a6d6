"""Where this package meets Celery's worker."""
