"""From JPEG files to training batches: fastccsa's ways, others', and the floors."""
