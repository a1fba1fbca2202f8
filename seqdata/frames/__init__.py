"""One frame: from the bytes of an image to the bytes that are stored, and from stored bytes to pixels."""
