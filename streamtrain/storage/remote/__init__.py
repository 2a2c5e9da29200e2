"""Files of stores elsewhere: ``s3://``, ``gs://``, ``az://``, ``http(s)://`` and ``memory://``.

`address` is a URL without its secrets, `client` asks for bytes and asks again, `transport` makes one request, `place` is what
readers of files see, `listing` finds the files. Libraries are imported when a URL is opened.
"""
