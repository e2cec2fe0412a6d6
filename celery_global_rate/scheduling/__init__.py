"""When a held task starts: no Redis, no Celery, no clock."""
