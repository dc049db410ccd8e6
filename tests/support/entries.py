"""The commands of the project and the folder of their configurations."""

from tests.support.command import PROJECT

CONF = PROJECT / "conf"
ENTRIES = [
    ("pipeline", "render"),
    ("pipeline", "verify"),
    ("pipeline", "inspect"),
    ("pipeline", "pack"),
    ("pipeline", "export"),
    ("pipeline", "status"),
    ("training", "finetune"),
    ("training", "encode"),
    ("training", "loading"),
    ("training", "convert"),
    ("training", "benchmark"),
    ("training", "plot"),
    ("inference", "sample"),
    ("inference", "text_to_views"),
    ("inference", "demo"),
    ("inference", "benchmark"),
    ("inference", "evaluate"),
    ("inference", "reconstruct"),
    ("inference", "report"),
]
