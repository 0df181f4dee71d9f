"""Put a project with its results into the forms that venues and archives ask for."""
