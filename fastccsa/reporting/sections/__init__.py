"""The sections of the page: each turns runs into what its template shows."""
