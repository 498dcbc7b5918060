"""Drawing: values in, inline SVG out; colours come from classes, so that one drawing serves both themes."""
