"""Serve the built book on localhost: `python -m book.tools.serve --html build/html --port 8000`."""

import argparse
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from book.tools.option_types import check_port, whole


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--html", default="build/html", help="folder of the rendered book")
    parser.add_argument("--port", type=whole, default=8000)
    options = parser.parse_args()
    try:
        check_port(options.port)
        folder = Path(options.html).expanduser()
        if not (folder / "index.html").is_file():
            raise ValueError(f"there is no book in {options.html}: run `make book`, or name its folder by HTML=.")
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    handler = partial(SimpleHTTPRequestHandler, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", options.port), handler) as server:
        print(f"Serving on http://127.0.0.1:{options.port} - end with Ctrl-C", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return 0


if __name__ == "__main__":
    sys.exit(main())
