"""Rewrites of graphs, one in each file: functions from a graph to a graph that computes the same."""
