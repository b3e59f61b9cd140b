"""How fast stream-coord is, measured beside floors and peers: ``python -m benchmarks``."""
