"""The losses beside the ways to compute them without fastccsa, and their errors against float64."""
