"""What the connection of the limits reads from the server that Celery uses."""

from __future__ import annotations

from celery import Celery

from celery_global_rate.settings import Settings


def read_by_us(app: Celery, key: str) -> bytes | None:
    """The value of a key where the limits are kept."""
    connection = Settings.from_app(app).connection()
    try:
        connection.connect()
        connection.send_command("GET", key)
        return connection.read_response()
    finally:
        connection.disconnect()


def written_by_kombu(app: Celery) -> bytes | None:
    """What a connection of ours reads after kombu has written ``b"kombu"`` to the broker."""
    with app.connection_for_read() as broker:
        broker.default_channel.client.set("written by", "kombu")
    return read_by_us(app, "written by")
