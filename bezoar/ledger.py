"""`python -m bezoar.ledger` (llm/ledger.py): show, move and mend what was bought."""

from bezoar.llm import ledger

if __name__ == "__main__":
    ledger.main()
