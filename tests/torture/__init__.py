"""Kills a real server under load, again and again, and looks for anything acknowledged that is not there."""
