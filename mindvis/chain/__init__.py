"""One command for the chain: plan, skip what is done, run what is missing, continue after a failure."""
