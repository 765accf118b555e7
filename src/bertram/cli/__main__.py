"""What `python -m bertram.cli` and torchrun run."""

from bertram.cli.app import main

if __name__ == "__main__":
    main()
