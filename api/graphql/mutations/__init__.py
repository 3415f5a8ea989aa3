"""What the admin API does: all mutations, made from one table."""
