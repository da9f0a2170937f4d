"""Calls -> workers -> outcomes: which call runs where and when, and what becomes of it."""
