"""Content-addressed bytes in a folder or an object store. The only room that knows obstore."""
