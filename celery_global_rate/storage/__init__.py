"""All that is said to Redis, and what it answers; no Celery application."""
