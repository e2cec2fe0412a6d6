"""What held messages need of their broker."""
