"""From a dataset to an index: windows are described by any `Describer`, transformed, stored and measured."""
