"""Put two entries into the schedule of django-celery-beat, one of which fails: each is due ten times a second."""

import django

django.setup()

from django_celery_beat.models import IntervalSchedule, PeriodicTask  # noqa: E402  (only now are there models)

often, _ = IntervalSchedule.objects.get_or_create(every=100_000, period=IntervalSchedule.MICROSECONDS)
PeriodicTask.objects.create(name="good", task="limited", interval=often)
PeriodicTask.objects.create(name="bad", task="limited", interval=often, args='[0, "boom"]')
