"""Shows a result as text, JSON, JUnit or one HTML file."""
