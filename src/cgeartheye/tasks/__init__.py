"""One task a file: target format, head, loss, decoding, metric."""
