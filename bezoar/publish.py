"""`python -m bezoar.publish` (report/publish.py): sets and checkpoints onto the Hub."""

from bezoar.report import publish

if __name__ == "__main__":
    publish.main()
