"""Files that people write by hand: read with the place of every key, checked, and errors told with it."""
