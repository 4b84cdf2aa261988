"""The engines of the comparison, in the order of the table."""
