"""Results for people: tables on the terminal and in Markdown."""
