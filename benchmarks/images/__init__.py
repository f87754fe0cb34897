"""From JPEG files to training batches: fastccsa, other libraries, and the floors."""
