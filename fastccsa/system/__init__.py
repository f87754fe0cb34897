"""What every other package may use: errors, files, devices, facts about the machine, and what is installed."""
