"""One suite a plug, run over all of its adapters."""
