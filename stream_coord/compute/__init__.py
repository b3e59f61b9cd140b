"""Pure computation: arrays in, arrays out; nothing here reads a file or a clock."""
