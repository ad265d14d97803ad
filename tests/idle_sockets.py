"""Many sockets that say half a request and no more, to a page that has others to serve: `idle_sockets.py PORT COUNT`.

Whoever is hung up on comes back after a second. Says "ready" when all have come once, and goes on until it is killed.
"""

from __future__ import annotations

import asyncio
import resource
import sys

HALF = b"GET /judge HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "
PAUSE = 1.0  # seconds


async def stay(port: int, come: asyncio.Semaphore, there: asyncio.Event) -> None:
    while True:
        try:
            async with come:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            there.set()
            writer.write(HALF)
            await reader.read()
            writer.close()
        except OSError:  # the server was killed, or hung up in the middle
            pass
        await asyncio.sleep(PAUSE)


async def crowd(port: int, count: int) -> None:
    come, all_there = asyncio.Semaphore(100), [asyncio.Event() for _ in range(count)]
    staying = asyncio.gather(*(stay(port, come, there) for there in all_there))
    for there in all_there:
        await there.wait()
    print("ready", flush=True)
    await staying


if __name__ == "__main__":
    port, count = map(int, sys.argv[1:])
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, count + 100), most))
    asyncio.run(crowd(port, count))
