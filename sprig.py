"""The one command."""


def main() -> None:
    raise SystemExit(0)
