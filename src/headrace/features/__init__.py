"""Feature views, online state, training sets."""
