"""What runs a sweep on a Ray cluster."""
