"""K-means and balanced selection."""
