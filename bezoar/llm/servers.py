"""Several servers of one model, and the choice among them for each request."""

from collections.abc import Sequence

# Seconds without requests after the first failure of a server. They double with each further
# failure in a row, up to LONGEST.
REST = 1.0
LONGEST = 60.0


class Servers:
    """The addresses that serve one model, the requests under way at each, and their failures.

    The next request goes to the least busy server. But a dead server that refuses connections fails
    at once, so it is always the least busy and would get every request. So a server rests after a
    failure. Times are seconds on one clock, which the caller reads.
    """

    def __init__(self, urls: Sequence[str]) -> None:
        self._under_way = dict.fromkeys(urls, 0)
        self._failures = dict.fromkeys(urls, 0)  # in a row
        self._back = dict.fromkeys(urls, 0.0)  # when its rest is over

    def take(self, now: float) -> str:
        """Take an address for one request: the least busy of those that do not rest. If all rest,
        it is the one whose rest is over first."""
        ready = [url for url, back in self._back.items() if back <= now]
        if ready:
            url = min(ready, key=self._under_way.__getitem__)
        else:
            url = min(self._back, key=self._back.__getitem__)
        self._under_way[url] += 1
        return url

    def give_back(self, url: str, now: float, failed: bool) -> None:
        """End a request at an address. `failed` says that the server did not answer, or with an
        error of its own (5xx)."""
        self._under_way[url] -= 1
        if failed:
            self._back[url] = now + min(LONGEST, REST * 2 ** min(self._failures[url], 10))
            self._failures[url] += 1
        else:
            self._failures[url], self._back[url] = 0, 0.0
