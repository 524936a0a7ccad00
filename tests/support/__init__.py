"""Parties and peers that several test modules share."""
