"""One file a section: reads a finished stage folder, has the pure parts prepare it, draws it."""
