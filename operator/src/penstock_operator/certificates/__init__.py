"""The release's own certificates: a CA for its Services, serving certificates, and their renewal before they expire."""
