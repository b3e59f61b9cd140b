"""The in-memory session store."""
