"""Heads that sit on a backbone."""
