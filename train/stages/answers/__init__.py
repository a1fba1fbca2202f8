"""Answers of an index under protocols: which are searched, which were stored, and searching in parts of the queries."""

from train.stages.answers.parts import QuerySearch
from train.stages.answers.protocols import AnswerOptions, answer_protocols, other_predictions

__all__ = ["AnswerOptions", "QuerySearch", "answer_protocols", "other_predictions"]
