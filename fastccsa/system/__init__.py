"""Helpers that every other package may use: errors, files, devices, and facts about the machine and installation."""
