"""Where and when the nodes of a graph run: costs, placement, copies, and the report of what was decided and why.

Nothing is imported here: the plugin door needs only what a speed is.
"""
