"""What an API answers to a task: that it wants fewer requests."""
