"""The training loop: setup, steps, optimizers, validation, several processes, signals."""
