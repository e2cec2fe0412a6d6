"""What each library calls to wait for its turn: a module for each, with `acquire` in it, and who calls that."""
