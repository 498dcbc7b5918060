"""Plain vision transformers. Arrays in, arrays out."""
