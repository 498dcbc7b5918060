"""`demo`: render a world, write its project file, run it."""
