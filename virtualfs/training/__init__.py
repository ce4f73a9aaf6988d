"""Training datasets: spines going in, point-in-time answers coming out."""
