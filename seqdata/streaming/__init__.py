"""Orders of windows over the stored frames: streams, batches, shuffling, and a stage for plain webdataset."""
