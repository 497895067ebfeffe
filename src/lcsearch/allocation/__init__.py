"""Which arm gets the next free worker, and the check that holds an allocator to what it may do: pure."""
