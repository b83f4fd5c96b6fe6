"""Certificates of theorems, and the program that checks them: it imports nothing, and runs as a script as well."""
