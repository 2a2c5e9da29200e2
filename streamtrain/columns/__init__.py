"""From Arrow columns to numbers: what each column becomes, row by row, without state."""
