"""The ruler: clocks, caches, ceilings, sampling, statistics and the environment."""
