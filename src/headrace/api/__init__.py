"""HTTP: decisions, features and events for other services. No decisions in it."""
