"""Text files as tables: the bytes of a file, the records in it, and the part that CSV and JSON lines share."""
