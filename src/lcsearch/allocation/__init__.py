"""Which arm gets the next free worker, and the check that holds a policy to what it may do: pure."""
