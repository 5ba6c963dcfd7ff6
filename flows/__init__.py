"""Orchestration only: what happens, in which order."""

from tasks.runtime.heartbeats import end_without_waiting

end_without_waiting()
