"""One application for each, written as its documentation says; workers run them in an environment of their own."""
