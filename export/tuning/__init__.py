"""Which recipe fits into the time that a line gives: candidates judged and timed once, and chosen from one table."""
