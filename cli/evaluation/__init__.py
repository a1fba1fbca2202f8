"""Commands that measure: eval, compare, report."""
