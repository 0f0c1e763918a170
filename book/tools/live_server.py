"""Voila with limits: `python -m book.tools.live_server NOTEBOOK --port=8000`, what `make live` starts.

It accepts only requests to local host names, starts a kernel for each page, at most `MOST_KERNELS`, and ends kernels
whose page is closed.
"""

import sys
from functools import partial

import tornado.web
from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager
from traitlets.config import Config
from voila.app import Voila

HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})
MOST_KERNELS = 3  # of 700 MB each
IDLE = 120  # seconds without a page and without work after which a kernel ends
MOST_BYTES = 8 * 2**20  # of a message or a request


class FewKernels(AsyncMappingKernelManager):
    """Starts at most MOST_KERNELS at a time."""

    starting = 0

    async def start_kernel(self, **options) -> str:
        if len(self) + self.starting >= MOST_KERNELS:
            raise tornado.web.HTTPError(503, f"{MOST_KERNELS} pages are open already: close one, or wait two minutes.")
        self.starting += 1
        try:
            return await super().start_kernel(**options)
        finally:
            self.starting -= 1


class LiveServer(Voila):
    """Refuses requests with another host name, which other sites' pages can send by DNS rebinding."""

    def listen(self) -> None:
        self.app.find_handler = partial(_of_this_host, self.app, self.app.find_handler)
        self.app.listen = partial(self.app.listen, max_body_size=MOST_BYTES)
        super().listen()


def _of_this_host(app: tornado.web.Application, find_handler, request, **options):
    if request.host_name in HOSTS:
        return find_handler(request, **options)
    return app.get_handler_delegate(request, tornado.web.ErrorHandler, {"status_code": 403})


def settings() -> Config:
    """Voila's configuration with the limits."""
    config = Config()
    config.Voila.ip = "127.0.0.1"
    config.Voila.port_retries = 0
    config.Voila.open_browser = False
    config.Voila.log_level = "ERROR"
    config.Voila.tornado_settings = {"websocket_max_message_size": MOST_BYTES}
    config.VoilaConfiguration.multi_kernel_manager_class = FewKernels
    config.MappingKernelManager.cull_idle_timeout = IDLE
    config.MappingKernelManager.cull_interval = IDLE // 4
    return config


if __name__ == "__main__":
    LiveServer.launch_instance(argv=sys.argv[1:], config=settings())
