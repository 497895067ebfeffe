"""What a sweep is asked for: the file, its search space, its checks."""
