"""Commands for a first look: init, demo, synth."""
