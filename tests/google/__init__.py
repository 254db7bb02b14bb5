"""Google Cloud Storage for tests: its XML interface as its reference describes it, and the identities that it takes.

    python -m tests.google --port PORT --account FILE [--certificate FILE --key FILE]

One bucket in memory, for the requests that ``gs://`` makes and no others: what it does not know it refuses. A request
must carry a token that the service account's key signed or that was given out here, or be signed by that key (V4).
The same port is the metadata server of an instance, Google's token endpoint and the service that signs for an
identity without a key. Of an object's hashes only MD5 is told: the library's client reads none.
"""
