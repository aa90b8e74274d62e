"""Pictures, drawn with matplotlib, which is imported at the first one."""
