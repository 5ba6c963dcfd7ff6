"""What people and machines start: the command line, servers, deployments, diagnostics."""
