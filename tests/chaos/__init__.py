"""Workers, a Redis with a replica and a Sentinel for their limits, and what goes wrong with all of them at random."""
