"""One self-contained HTML page that tells what a run did and how good its models are."""

from ayni.report.page import build_report

__all__ = ["build_report"]
