"""OpenTelemetry as its documentation has it, with spans that go into a file. To be included beside `testbed.app`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from celery.signals import worker_process_init
from opentelemetry import trace
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

from testbed.app import SETUP

FILE = Path(SETUP["records"]).parent / "telemetry"


@worker_process_init.connect(weak=False)
def begin_tracing(**kwargs: Any) -> None:
    exporter = ConsoleSpanExporter(out=FILE.open("a"), formatter=lambda span: span.to_json(indent=None) + "\n")
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    CeleryInstrumentor().instrument()
