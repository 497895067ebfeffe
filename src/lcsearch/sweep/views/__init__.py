"""What people and programs are shown of a sweep: lines, screen, summary, explanations, plan."""
