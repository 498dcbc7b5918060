"""`run`: every stage of a project that is not done yet, in order."""
