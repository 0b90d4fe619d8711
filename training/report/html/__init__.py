"""Reports as pages: one file each, which loads nothing, runs no script, and can be sent to anybody."""
