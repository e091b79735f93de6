"""Speed and memory, measured against the targets of the project and against its peers."""
