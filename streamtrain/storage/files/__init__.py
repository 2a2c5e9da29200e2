"""Where files are, which of them are data, and what their folders and contents say of them."""
