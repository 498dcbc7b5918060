"""A task model from a frozen backbone and the user's labels."""
