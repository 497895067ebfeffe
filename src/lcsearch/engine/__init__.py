"""ask, judge: pure functions that tie forecast/ and decide/ together."""
