"""Files and tables: one reader, one writer."""
