"""SQLite by default, PostgreSQL by URL: one set of rules for whoever keeps state."""
