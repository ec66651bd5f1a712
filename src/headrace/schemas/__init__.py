"""What may enter the log: validation of rows and batches, and the import of files."""

from headrace.schemas.batches import validate_batch
from headrace.schemas.validate import Problem, validate_rows, validator

__all__ = ["Problem", "validate_batch", "validate_rows", "validator"]
