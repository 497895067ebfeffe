"""Weight files, and those that ship: read, checked, written."""
