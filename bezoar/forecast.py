"""`python -m bezoar.forecast` (preflight/forecast.py): what a run will ask for, and its price."""

from bezoar.preflight import forecast

if __name__ == "__main__":
    forecast.main()
