"""Messages, channels and a worker's consumer that are made up: they note what becomes of them."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

from celery_global_rate.broker.held_request import Arrival, HeldRequest

VISIBILITY_S = 3600.0


class Message:
    """One that notes what becomes of it, and what became of which first.

    Args:
        tag: by which its broker knows it.
        deliveries: how often it was delivered before.
        log: of what happens, in order.
    """

    def __init__(self, tag: str, deliveries: int = 0, log: list[str] | None = None) -> None:
        self.delivery_tag, self.acknowledged = tag, False
        self.headers = {"x-delivery-count": deliveries}
        self.body, self.properties = tag, {"priority": 3, "application_headers": {**self.headers, "id": tag}}
        self.became = ""
        self._log = [] if log is None else log

    def requeue(self) -> None:
        self.became = "requeued"
        self._log.append(f"requeue {self.delivery_tag}")

    def ack(self) -> None:
        self.acknowledged, self.became = True, "acknowledged"


class Channel:
    """One that notes what is published."""

    def __init__(self) -> None:
        self.copies: list[tuple[str, dict[str, Any], str]] = []

    def __enter__(self) -> Channel:
        return self

    def __exit__(self, *error: object) -> None: ...

    def prepare_message(self, body: str, headers: dict[str, Any], **kwargs: Any) -> tuple[str, dict[str, Any]]:
        return body, headers

    def basic_publish_confirm(self, copy: tuple[str, dict[str, Any]], exchange: str, queue: str, **kwargs: Any) -> None:
        self.copies.append((*copy, queue))

    def basic_consume(self, queue: str, callback: Any, **kwargs: Any) -> None:
        self.deliver = callback


class RedisChannel:
    """One to a Redis broker, with its QoS: it notes what is written into the index, and what is restored.

    Attributes:
        taken: the score that the index has for each message, in epoch seconds.
        error: is raised when a connection is asked for.
    """

    unacked_index_key = "unacked_index"
    visibility_timeout = VISIBILITY_S
    _in_poll = None

    def __init__(self, *tags: str) -> None:
        self.written: list[tuple[Any, ...]] = []
        self.restored: list[str] = []
        self.taken = dict.fromkeys(tags, 0.0)
        self.error: Exception | None = None
        self._create_client = self.conn_or_acquire
        self.qos = SimpleNamespace(
            _delivered=dict.fromkeys(tags), restore_by_tag=lambda tag, client: self.restored.append(tag)
        )

    def conn_or_acquire(self) -> Any:
        if self.error:
            raise self.error
        return nullcontext(self)

    def zadd(self, *args: Any, **kwargs: Any) -> None:
        self.written.append((*args, kwargs))

    def zscore(self, key: str, tag: str) -> float | None:
        return self.taken.get(tag)


class Request:
    """One that a worker has received."""

    eta = expires = time_start = None
    stamps, stamped_headers = {}, ()  # type: ignore[var-annotated]
    on_accepted = on_success = staticmethod(lambda *args, **kwargs: None)

    def __init__(self, message: Message) -> None:
        self.id, self.name, self.message = message.delivery_tag, "proj.task", message
        self.delivery_info: dict[str, Any] = {}

    def revoked(self) -> bool:
        """Celery dismisses it if it was revoked."""
        self.message.ack()
        return True


def held(received: float, *messages: Message) -> list[HeldRequest]:
    """Requests that were received at this instant."""
    return [HeldRequest(Request(message), Arrival("celery", 0, received), 0.0) for message in messages]


def consumer_on(
    driver: str, channel: Any, arguments: dict[str, Any] | None = None, log: list[str] | None = None
) -> Any:
    """A worker's consumer of one queue, that does at once what it is asked to do soon.

    Args:
        driver: of the transport, such as `amqp`.
        channel: of the connection.
        arguments: of the queue.
        log: of what happens, in order.
    """
    connection = SimpleNamespace(
        transport=SimpleNamespace(driver_type=driver), default_channel=channel, channel=lambda: channel
    )
    connection.collect = lambda: None
    connection._default_channel = channel
    queue = SimpleNamespace(name="celery", queue_arguments=arguments, auto_delete=False, expires=None)
    events = [] if log is None else log
    tasks = SimpleNamespace(queues=[queue], _queues={"celery": queue}, channel=channel, _active_tags={"celery": "1"})
    tasks.cancel = lambda: events.append("cancel")
    return SimpleNamespace(
        connection=connection,
        task_consumer=tasks,
        call_soon=lambda action: action(),
        connection_errors=(OSError,),
        channel_errors=(),
    )
