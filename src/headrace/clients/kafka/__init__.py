"""Kafka, as far as the log needs it: the port and its settings; `confluent.py` is the adapter."""
