"""Take out of an archive who made it, or refuse what cannot lose that."""
