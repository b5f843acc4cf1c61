"""Graphs: traced from functions, rewritten, planned, and replayed."""
