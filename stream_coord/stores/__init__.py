"""Where bars and the ledger are kept."""
