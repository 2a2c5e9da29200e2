"""Files on servers: ``s3://``, ``gs://``, ``az://``, ``http(s)://`` and ``memory://``.

`address` is a URL without its secrets, `transport` makes one request, `client` makes requests with retries, `store` is the file
store for readers of files, and `listing` finds the files. Libraries are imported when a URL is opened.
"""
