"""The store of teacher logits: one record per sample and augmented view."""
