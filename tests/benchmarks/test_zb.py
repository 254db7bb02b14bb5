"""What zb prints is understood, and what it does not print is not made up."""

import pytest
from benchmarks.client import LoadError
from benchmarks.zb import parse, seconds_of

OUTPUT = """\
Registry URL:      http://127.0.0.1:5997
Concurrency Level: 4
Total requests:    40

Skipping test Get Catalog
Preparing test data ...
Starting tests ...
============
Test name:            Pull 1MB
Time taken for tests: 112.028646ms
Requests per second:  357.05154
Complete requests:    40
Failed requests:      0

2xx responses: 40

min: 1.914998ms
max: 10.910661ms
p50: 5.681008ms
p75: 8.802415ms
p90: 9.802267ms
p99: 10.910661ms

Manifest HEAD TTFB p50: 746.614µs
Manifest HEAD TTFB p99: 5.114742ms
"""


def test_the_figures_of_the_test_are_read() -> None:
    found = parse(OUTPUT)
    assert (found.requests, found.failed) == (40, 0)
    assert (found.seconds, found.p50, found.p99) == pytest.approx((0.112028646, 0.005681008, 0.010910661))


def test_failed_requests_are_told() -> None:
    assert parse(OUTPUT.replace("Failed requests:      0", "Failed requests:      3")).failed == 3


def test_a_run_that_broke_off_says_why() -> None:
    broken = "Starting tests ...\nthe response doesn't contain the expected status code: Expected: 201, Got: 400\n"
    with pytest.raises(LoadError, match="Expected: 201, Got: 400"):
        parse(broken)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("85µs", 85e-6), ("3.2ms", 3.2e-3), ("1.5s", 1.5), ("1m2.5s", 62.5), ("1h0m1s", 3601), ("100ns", 1e-7)],
)
def test_durations_are_those_of_go(text: str, seconds: float) -> None:
    assert seconds_of(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "fast", "12", "3 s", "1.5x"])
def test_other_durations_are_refused(text: str) -> None:
    with pytest.raises(LoadError, match="zb tells a time"):
        seconds_of(text)
