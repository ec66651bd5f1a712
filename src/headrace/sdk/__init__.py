"""What product teams write and read events with: producers, consumers, and what they set aside."""
