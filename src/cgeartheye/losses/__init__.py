"""The terms of the pre-training objective: teacher targets, class tokens, hidden patches, spread."""
