"""What a run leaves behind: tables, pictures, timelines."""

from . import drawing as drawing  # before any module here imports matplotlib
