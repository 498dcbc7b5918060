"""Views of chips: crops, colour changes and masks, batched, each draw a function of (seed, sample number, view)."""
