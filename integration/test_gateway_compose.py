"""`docker compose -f examples/gateway/compose.yml up`, as a user starts it."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request

import docker

from testbed.meanwhile import wait
from testbed.server import free_port

from .compose import Compose
from .conftest import Figures

PORT = free_port()
#: What the bucket allows.
RATE = 50.0


def test_gateway_and_workers_share_a_budget(docker_client: docker.DockerClient, figures: Figures) -> None:
    """The API gets 0.98 of 50 requests a second, some from each, and refuses none; others can call the gateway.

    The first line does not count: in these five seconds they start.
    """
    compose = Compose("examples/gateway/compose.yml", variables={"GATEWAY_PORT": str(PORT)})

    def lines() -> list[tuple[float, float]]:
        """What the API printed while both had work: customers and orders, a second."""
        found = re.findall(r"customers ([\d.]+)/s, orders ([\d.]+)/s$", compose("logs", "api"), re.MULTILINE)
        return [(float(customers), float(orders)) for customers, orders in found]

    def ask() -> object:
        """What a caller among all the others gets, or None if the gateway says that it is too much."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/orders/7", timeout=10) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            error.close()
            return None

    with compose.up() as up_s:
        wait(lambda: len(lines()) >= 5, 60, lambda: compose("logs"))
        wait(lambda: ask() == {"collection": "orders", "number": 7}, 30, lambda: compose("logs", "gateway"))
        seen, log = lines()[1:], compose("logs", "api")
    customers, orders = (sum(them) / len(seen) for them in zip(*seen))
    figures(f"up in {up_s:.0f} s; {customers:.1f} customers and {orders:.1f} orders a second")

    assert "refused" not in log
    assert 0.98 * RATE <= customers + orders <= 1.02 * RATE
    assert min(customers, orders) >= 0.2 * RATE
