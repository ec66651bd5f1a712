"""Policy, reasons, records, replay."""
