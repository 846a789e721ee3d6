"""``python -m entrob`` is the ``entrob`` script."""

from entrob.cli import main

main()
