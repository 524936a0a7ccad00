"""What engineers need to test an implementation of the protocol, theirs or ours."""
