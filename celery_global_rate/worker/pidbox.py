"""The remote control message that a command comes from, which kombu does not pass to the command."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any


class Broadcast:
    """The message whose command this worker runs next.

    Attributes:
        id: the same in all workers that receive it, and different for any other; empty before the first message.
    """

    def __init__(self) -> None:
        self._node: Any = None
        self.id = ""

    def listen(self, node: Any) -> None:
        """See the messages of a `kombu.pidbox.Node`."""
        if node is self._node:
            return
        self._node = node
        handle_message = node.handle_message

        def handle_seen(body: Mapping[str, Any], message: Any = None) -> Any:
            self.heard(body, getattr(message, "headers", None) or {})
            return handle_message(body, message)

        node.handle_message = handle_seen

    def heard(self, body: Mapping[str, Any], headers: Mapping[str, Any]) -> None:
        """Take note of a message.

        What distinguishes it from others: its ticket, if the sender waits for replies, the sender's clock, and its
        expiry, which is about a second after it was sent.
        """
        words = [body.get(key) for key in ("method", "arguments", "destination", "ticket")]
        words += [headers.get(key) for key in ("clock", "expires")]
        self.id = hashlib.sha1(json.dumps(words, sort_keys=True, default=str).encode()).hexdigest()
