"""Views and masks, batched on the training device."""
