"""State machines over real implementations, and over broken ones that they must find out."""
