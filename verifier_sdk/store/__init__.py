"""What a verifier node keeps, in SQLite or PostgreSQL."""
