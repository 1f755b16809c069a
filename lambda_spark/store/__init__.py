"""A made-up store in the REES46 format, with planted trends and pairs: for the demo, the tests and benchmarks."""
