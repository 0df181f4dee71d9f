"""Files of data: downloaded, listed with their SHA-256, and checked."""
