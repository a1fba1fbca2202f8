"""Tables, charts and pages of a declared experiment."""
