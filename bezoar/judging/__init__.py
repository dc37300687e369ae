"""What judges are shown, what they said, and how far they agree."""
