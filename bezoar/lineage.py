"""`python -m bezoar.lineage` (report/lineage.py): where a row comes from and where it went."""

from bezoar.report import lineage

if __name__ == "__main__":
    lineage.main()
