"""demur beside a straightforward implementation of the same work: ratios of time and of peak memory."""
