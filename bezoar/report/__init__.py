"""The report: every table and figure of a run, ours beside the paper's, as one static page."""

from bezoar.report.headline import checkpoints, headline
from bezoar.report.page import page
from bezoar.report.run import Run, read
from bezoar.report.sections.talks import answers, index
from bezoar.report.summary import summary

__all__ = ["Run", "answers", "checkpoints", "headline", "index", "page", "read", "summary"]
