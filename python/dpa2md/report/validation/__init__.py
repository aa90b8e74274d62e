"""Validation reports: how good one model is, or a small model beside a large one.

request = Request((Subject("student", "student.dpa2"), Subject("teacher", "big.pt")), ...)
write_report(validate(request, Path("report.work")), "report.html")
"""

from .page import write_report
from .request import DYNAMIC, SECTIONS, Conditions, Request, Subject
from .validation import Facts, Validation, validate

__all__ = [
    "DYNAMIC",
    "SECTIONS",
    "Conditions",
    "Facts",
    "Request",
    "Subject",
    "Validation",
    "validate",
    "write_report",
]
