"""kNN, linear and retrieval probes, and the plain colour features they are compared with."""
