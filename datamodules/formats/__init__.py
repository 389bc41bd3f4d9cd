"""One reader for each kind of image file."""
