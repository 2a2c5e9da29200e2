"""What a column becomes, row by row and without state: roles, the layout of a row, and the target."""
