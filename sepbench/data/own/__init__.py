"""A user's own files on their way into a suite: found, converted by stated rules, told apart by content, split by file, stored beside the suite's file."""
