"""What may enter the log: validation of rows and batches, and the import of files."""

from headrace.schemas.batches import validate_batch
from headrace.schemas.define import AvailableAt, ImportOptions, ImportReport
from headrace.schemas.validate import Problem, validate_rows, validator

__all__ = ["AvailableAt", "ImportOptions", "ImportReport", "Problem", "validate_batch", "validate_rows", "validator"]
