"""tmp"""


def allocate(allocator, state, snapshot, opinions, abilities, slots, key):
    return allocator.allocate(state, snapshot, opinions, abilities, slots, key)
