"""Records become batches, batches become gradients: one loop for every objective."""
