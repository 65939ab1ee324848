"""A web page that captions sounds on the visitor's own machine: static files, no server."""
