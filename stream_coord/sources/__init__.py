"""Where bars come from: files that people have, and whom to ask for what is missing."""
