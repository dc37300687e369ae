"""`python -m bezoar.params`: check params.yaml, or make another profile the active one."""

from bezoar import params

if __name__ == "__main__":
    params.main()
