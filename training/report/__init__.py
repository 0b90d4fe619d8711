"""What a run leaves behind: tables, pictures, pages, timelines."""
