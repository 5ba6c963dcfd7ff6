"""Fault injection: processes killed, files damaged, disks filled, servers stopped, rivals at once.

`make faults` runs all of it and ends with one line of counts; it exits 0 only if all is well.
"""
