"""What a run leaves behind: tables, pictures, timelines."""
