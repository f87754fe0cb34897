"""Images a second, from files to finished training batches: fastccsa's ways, what others do, and the floors."""
