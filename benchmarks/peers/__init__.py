"""The same bars through the same strategy here and in other libraries, side by side."""
