"""Messages of Amazon SQS that are held for longer than its visibility timeout."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from .held_request import HeldRequest

logger = logging.getLogger(__name__)

#: The share of the visibility timeout after which that of held messages is renewed.
RENEWAL_SHARE = 1 / 3
#: How many messages go into one request.
BATCH = 10


class VisibilityTimeout:
    """Renews the visibility timeout of held messages, by ChangeMessageVisibilityBatch.

    kombu gives a queue its timeout only when it creates it, so the queue is asked. SQS hides no message for more than
    twelve hours after it was received.

    Each request blocks until SQS replies, as each acknowledgement of kombu does: one for ten messages, three times a
    timeout.

    Args:
        channel: kombu's.
    """

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self._timeouts_s: dict[str, int] = {}
        self._has_warned = False

    def due(self, request: HeldRequest) -> float:
        """The monotonic instant at which the timeout of a request that begins to be held now must be renewed."""
        return request.received + self._timeout_s(request.message) * RENEWAL_SHARE

    def keep_up(self, now: float, held: Sequence[HeldRequest]) -> float:
        """Renew the timeout of held messages; returns the monotonic instant of the next time."""
        by_queue = defaultdict(list)
        for request in held:
            by_queue[request.message.delivery_info["sqs_queue"]].append(request.message)
        for messages in by_queue.values():
            for first in range(0, len(messages), BATCH):
                self._hide(messages[first : first + BATCH])
        timeouts_s = (self._timeout_s(messages[0]) for messages in by_queue.values())
        return now + min(timeouts_s, default=float("inf")) * RENEWAL_SHARE

    def _hide(self, messages: Sequence[Any]) -> None:
        client, timeout_s = self._client(messages[0]), self._timeout_s(messages[0])
        entries = [
            {
                "Id": str(place),
                "ReceiptHandle": message.delivery_info["sqs_message"]["ReceiptHandle"],
                "VisibilityTimeout": timeout_s,
            }
            for place, message in enumerate(messages)
        ]
        try:
            reply = client.change_message_visibility_batch(
                QueueUrl=messages[0].delivery_info["sqs_queue"], Entries=entries
            )
            failed = [entry["Code"] for entry in reply.get("Failed", ())]
        except client.exceptions.ClientError as exc:  # SQS refuses
            failed = [exc.response["Error"]["Code"]]
        if failed and not self._has_warned:
            self._has_warned = True
            logger.warning(
                "global-rate: SQS does not hide held messages for longer (%s), and may deliver them again: allow "
                "sqs:ChangeMessageVisibility, or set a visibility timeout that is longer than tasks are held",
                failed[0],
            )

    def _timeout_s(self, message: Any) -> int:
        url = message.delivery_info["sqs_queue"]
        if url not in self._timeouts_s:
            client = self._client(message)
            try:
                reply = client.get_queue_attributes(QueueUrl=url, AttributeNames=["VisibilityTimeout"])
                self._timeouts_s[url] = max(1, int(reply["Attributes"]["VisibilityTimeout"]))
            except client.exceptions.ClientError:  # not allowed
                self._timeouts_s[url] = self._channel.visibility_timeout
        return self._timeouts_s[url]

    def _client(self, message: Any) -> Any:
        """The client that kombu has for the queue of a message."""
        return self._channel.sqs(queue=self._channel.canonical_queue_name(message.delivery_info["routing_key"]))
