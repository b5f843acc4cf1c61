"""Where and when the nodes of a graph run: costs, placement, copies, and the report of what was decided and why.

Nothing is imported here, so that who needs the value of a speed does not load the scheduler.
"""
