"""Commands around models: train, models, describe, profile, experiment."""
