"""An hour of everything that tasks do, with limits that change and workers that come and go."""
