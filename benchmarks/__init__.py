"""Moorage and its peers under one load each: server CPU, rate, latency and memory, side by side."""
