"""One module per command, each with its `command`; heavy imports stand inside the functions."""
