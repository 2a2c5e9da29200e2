"""Text files as tables: their bytes, their records, and what CSV and JSON lines share."""
