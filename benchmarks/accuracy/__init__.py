"""AL's accuracy beside BP's: an equal search for both, and seeds of the choice (see README.md)."""
