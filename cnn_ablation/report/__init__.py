"""Tables of a study for people and programs: on the terminal, and as CSV, Parquet, Markdown, TeX and HTML."""
