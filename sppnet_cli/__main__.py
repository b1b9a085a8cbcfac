"""`python -m sppnet_cli` is `sppnet`."""

from sppnet_cli.cli import main

if __name__ == "__main__":
    main()
