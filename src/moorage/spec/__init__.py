"""Floor 0: the nouns and rules of the specifications. No I/O, no async, nothing of the other floors."""
