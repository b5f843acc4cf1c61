"""Machines to plan for: files that say how fast their devices and links are by their makers' data sheets."""
