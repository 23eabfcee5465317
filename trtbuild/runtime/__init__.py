"""Networks and engines are run: one protocol of a session, and what stands behind it."""
