"""The servers and the worker of one machine: started, guarded, found again, stopped."""
