"""The run folder as a contract: what a run was told, what it wrote, and how others read it."""
