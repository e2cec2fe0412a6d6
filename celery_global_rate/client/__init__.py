"""The same limits outside a worker: in web processes, gateways and scripts."""
