"""Scores of decoded pictures: n-way identification, similarity, FID, consistency, controls, and the report."""

from mindvis.evaluation.identification import identification_accuracy, n_way_accuracy, n_way_table
from mindvis.evaluation.similarity import similarity_matrix

__all__ = ["identification_accuracy", "n_way_accuracy", "n_way_table", "similarity_matrix"]
