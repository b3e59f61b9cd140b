"""The `sc` command: one small file per command; each parses, calls the library, renders."""
