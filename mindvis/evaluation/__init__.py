"""Scores of decoded pictures: n-way identification, similarity, FID, consistency, controls; the report; the audit."""

from mindvis.evaluation.audit import Audit, audit_pictures
from mindvis.evaluation.classifiers import Classifier, load_classifier
from mindvis.evaluation.compare import compare_reports, comparison_text
from mindvis.evaluation.evaluate import evaluate_folder, evaluate_sets
from mindvis.evaluation.identification import identification_accuracy, n_way_accuracy, n_way_table
from mindvis.evaluation.measures import Protocol
from mindvis.evaluation.report import Figure, Report, text_table
from mindvis.evaluation.report_page import write_report
from mindvis.evaluation.similarity import similarity_matrix

__all__ = [
    "Audit",
    "Classifier",
    "Figure",
    "Protocol",
    "Report",
    "audit_pictures",
    "compare_reports",
    "comparison_text",
    "evaluate_folder",
    "evaluate_sets",
    "identification_accuracy",
    "load_classifier",
    "n_way_accuracy",
    "n_way_table",
    "similarity_matrix",
    "text_table",
    "write_report",
]
