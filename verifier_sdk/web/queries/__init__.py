"""What the pages read from the database. They write nothing."""
