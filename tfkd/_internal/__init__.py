"""Parts that no user calls: child processes, file writes, progress, and every use of a private attribute of Keras."""
