"""What is computed over the log as it grows, and written back to it: derived topics."""
