KINDS: tuple[str, ...] = ("chair",)
