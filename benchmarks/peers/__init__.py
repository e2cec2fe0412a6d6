"""The same load on what Celery users limit rates with: their applications, one run, a table and a chart."""
