"""``--where``: its grammar (`grammar`), literals in the type of a column (`literals`), and the rows that match (`masks`)."""
