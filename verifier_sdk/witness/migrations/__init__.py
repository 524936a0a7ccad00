"""What makes and changes the tables of a witness, by Alembic."""
