"""The terms of the pre-training objective."""
