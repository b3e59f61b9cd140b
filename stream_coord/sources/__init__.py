"""Where bars come from: files in the formats that people have."""
