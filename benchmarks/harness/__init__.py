"""What every benchmark needs: turns, memory, rows of results, and their table and chart."""
