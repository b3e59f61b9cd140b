"""Coordinate market-data sessions for backtests on stored minute bars."""

__version__ = "0.1.0"
