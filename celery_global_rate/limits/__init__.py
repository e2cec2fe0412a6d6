"""Values of limits, slots and time; no I/O."""
