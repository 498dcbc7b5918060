"""The rendered world: a seeded landscape in four seasons, with its labels."""
