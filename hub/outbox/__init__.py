"""Out: postings that are intended in the log, sent to their targets and proved there."""
