"""The sections of the page: each turns runs into the data that its template shows."""
