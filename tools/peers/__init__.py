"""Other tools for the same work, each as a program that `era bench ingest --peer` can run; see README.md."""
