"""What runs a sweep: a launch, its worker processes, signs of life, how a trial is trained."""
