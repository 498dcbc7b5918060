"""Whole scenes to seamless maps, in constant memory."""
