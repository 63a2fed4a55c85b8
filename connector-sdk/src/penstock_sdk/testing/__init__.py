"""The conformance suite: what a connector must do, shown by real runs in real processes.

`penstock-connector test` and the pytest plugin run the same checks on a subject: a connector and a connection of it.
"""

from __future__ import annotations

from penstock_sdk.testing.checks import CHECKS, Check, Outcome, Verdict, judge, judge_all
from penstock_sdk.testing.laboratory import Laboratory
from penstock_sdk.testing.report import is_conformant, report_of, tree_digest
from penstock_sdk.testing.run_api import RunApi
from penstock_sdk.testing.subject import FILE, Subject, SubjectError, Variant, installed, opened_subject, read_document

__all__ = [
    "CHECKS",
    "FILE",
    "Check",
    "Laboratory",
    "Outcome",
    "RunApi",
    "Subject",
    "SubjectError",
    "Variant",
    "Verdict",
    "installed",
    "is_conformant",
    "judge",
    "judge_all",
    "opened_subject",
    "read_document",
    "report_of",
    "tree_digest",
]
