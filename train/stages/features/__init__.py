"""Feature datasets: what to store, the beginning, the parts, and their writing in one process or many."""

from train.stages.features.request import FeatureRequest
from train.stages.features.write import write_feature_share, write_features, write_features_on

__all__ = ["FeatureRequest", "write_feature_share", "write_features", "write_features_on"]
