"""Several findings an image: figures of each, thresholds, and what a stream's are worth."""
