"""The live page of a record, and what it shares with the report: what a browser shows."""
