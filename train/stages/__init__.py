"""The stages that need a model: features, index, evaluation, search, reports, packs."""
