import conf  # noqa: F401  # before torch: it sets how OpenMP's idle threads wait
