"""Image files of many formats: which are read, how they are opened safely, and their pixels as 8-bit RGB."""
