"""Progress of small runs, computed by hand, and the state of runs that were killed."""

import json

import pytest

from conf.options import UserError
from pipeline.progress import Node, Phase, Progress, Tally, read, write
from pipeline.shards import ObjectRecord, write_shard
from pipeline.status import lines
from pipeline.storage import write_atomically

EARLIER = [
    ObjectRecord("e1", "ok", seconds=4, phases={"render": 3.0}, bytes=100),
    ObjectRecord("e2", "failed", "timeout", "it took longer", seconds=6),
]
A1 = ObjectRecord("a1", "ok", seconds=8, phases={"fetch": 2.0, "render": 6.0}, bytes=40, node="one")
A2 = ObjectRecord("a2", "ok", seconds=4, phases={"render": 4.0}, bytes=10, node="one")
B1 = ObjectRecord("b1", "failed", "crashed", "Blender died", seconds=5, node="two")


def test_progress_of_a_small_run():
    tally = Tally({"a1": "a", "a2": "a", "b1": "b"}, EARLIER, views=12, now=1000)
    assert tally.progress(1000, "running").seconds_left is None  # nothing is known yet
    assert tally.add(A1, 1010) is None
    assert tally.add(B1, 1010) == "b"
    half = tally.progress(1010, "running")
    assert (half.done, half.total) == (4, 5) and half.seconds_left == pytest.approx(5)  # 2 objects in 10 s, 1 to come
    assert tally.add(A2, 1020) == "a" and tally.complete
    now = tally.progress(1020, "finished", started=900, wandb="id")
    assert (now.started, now.updated, now.seconds, now.wandb) == (900, 1020, 20, "id")
    assert (now.total, now.done, now.ok, now.views, now.bytes) == (5, 5, 3, 36, 150)
    assert now.failed == {"timeout": 1, "crashed": 1}
    # Three objects, two with views, in the 20 s of this session; earlier objects do not count.
    assert now.objects_per_second == now.recent_objects_per_second == pytest.approx(3 / 20)
    assert now.views_per_second == now.recent_views_per_second == pytest.approx(2 * 12 / 20)
    # 4 + 6 + 8 + 5 + 4 = 27 s, of which 13 rendering and 2 fetching are known.
    assert now.phases == {
        "render": Phase(pytest.approx(13 / 5), pytest.approx(13 / 27)),
        "fetch": Phase(pytest.approx(2 / 5), pytest.approx(2 / 27)),
        "other": Phase(pytest.approx(12 / 5), pytest.approx(12 / 27)),
    }
    # Shard a was in progress from 1002 to 1020, 12 s of that with objects.
    assert now.nodes == {"one": Node(2, 12, pytest.approx(12 / 18)), "two": Node(1, 5, 1.0)}
    assert now.seconds_left == 0


def test_utilisation_counts_every_worker_of_a_node():
    tally = Tally({"a": "0", "b": "1"}, [], views=1, now=0)
    tally.add(ObjectRecord("a", "ok", seconds=10, node="n"), 10)
    tally.add(ObjectRecord("b", "ok", seconds=10, node="n"), 10)
    assert tally.progress(10, "running").nodes["n"] == Node(2, 20, 1.0)


def test_recent_speed_covers_the_last_five_minutes():
    tally = Tally({str(i): "shard" for i in range(40)}, [], views=2, now=0)
    for i in range(10):
        tally.add(ObjectRecord(str(i), "ok", seconds=1), 5)
    tally.add(ObjectRecord("10", "failed", "blank", seconds=1), 605)
    now = tally.progress(610, "running")
    assert now.recent_objects_per_second == pytest.approx(1 / 290)  # since 320, the full tens
    assert now.recent_views_per_second == 0 and now.views_per_second == pytest.approx(20 / 610)
    assert now.objects_per_second == pytest.approx(11 / 610)
    assert now.seconds_left == pytest.approx(29 * 290)
    later = tally.progress(2000, "running")
    assert later.recent_objects_per_second == 0 and later.seconds_left == pytest.approx(29 * 2000 / 11)


def test_an_object_counts_once():
    tally = Tally({"a1": "a", "a2": "a"}, [], views=1, now=0)
    assert [tally.add(record, 10) for record in (A1, A1, A2)] == [None, None, "a"]
    assert tally.progress(10, "running").ok == 2


@pytest.fixture(params=["folder", "memory"])
def root(request, tmp_path):
    """Return a folder in which two of five planned objects are committed."""
    root = str(tmp_path) if request.param == "folder" else f"memory://{tmp_path.name}"
    write_shard(root, "views-000000", [("e1", {"meta.json": b"{}"})], EARLIER)
    import fsspec

    with fsspec.open(f"{root}/plan.json", "w") as file:
        json.dump({"objects": 5, "shards": 3, "renderer.views": 12}, file)
    return root


def test_without_progress_json_the_manifests_are_counted(root):
    now = read(root, 2000)
    assert (now.state, now.done, now.total, now.ok, now.views, now.bytes) == ("stopped", 2, 5, 1, 12, 100)
    assert now.failed == {"timeout": 1}
    assert lines(now, "v", 2000)[0] == "v: stopped; repeat the command to resume"  # the time is not known


def test_progress_round_trip_and_a_run_without_updates_is_stale(root):
    tally = Tally({"a1": "a", "a2": "a", "b1": "b"}, EARLIER, views=12, now=1000)
    tally.add(A1, 1010)
    alive = tally.progress(1010, "running", started=900, wandb="id")
    write(root, alive)
    assert read(root, 1040) == alive
    dead = read(root, 1100)
    assert (dead.state, dead.started, dead.updated, dead.wandb) == ("stale", 900, 1010, "id")
    assert (dead.done, dead.total) == (2, 5)  # a1 was not committed, so it is lost
    stopped = tally.progress(1010, "stopped")
    write(root, stopped)
    assert read(root, 9999) == stopped


def test_a_run_killed_after_its_last_shard_is_finished(root):
    write(root, Tally({"a1": "a"}, EARLIER, 12, 1000).progress(1000, "running"))
    write_shard(root, "views-000001", [("a1", {"meta.json": b"{}"})], [A1, A2, B1])
    assert read(root, 2000).state == "finished" and read(root, 2000).done == 5


@pytest.mark.parametrize("contents", ["", "[]", '{"state": "running"}', '{"started": 1, "updated": 1, "wandb": ""}'])
def test_an_invalid_progress_file_is_refused(tmp_path, contents):
    (tmp_path / "progress.json").write_text(contents)
    with pytest.raises(UserError, match="delete it"):
        read(str(tmp_path), 0)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="path="):
        read(str(tmp_path), 0)


def test_the_status_report_fits_80_columns():
    tally = Tally({f"{i}": f"{i // 5}" for i in range(1000)}, [], views=12, now=0)
    for i in range(600):
        status, reason = ("failed", "timeout") if i % 10 == 0 else ("ok", "")
        node = f"node-{i // 5 % 25}-of-a-cloud-with-long-names"
        record = ObjectRecord(str(i), status, reason, "", 5, {"render": 3.0}, 100_000, node)
        tally.add(record, 0.5 + i / 2)
    text = lines(tally.progress(300, "running", wandb="abc"), "s3://bucket/views", 300)
    assert all(len(line) <= 80 and line.isprintable() for line in text)
    assert text[0] == "s3://bucket/views: running"
    # 400 remain at the recent speed, 581 in 290 s.
    assert text[1] == "##############..........  60%  600 of 1,000 objects, 0:03:20 left"
    assert "session   2.00 objects/s, 21.6 views/s, over 0:05:00" in text
    assert "written   6,480 views of 540 objects, 60 MB" in text
    assert "failed    60 objects, 10.0%" in text
    assert "  timeout              60  ######################## 100%" in text
    assert "  render             3.00  ##############..........  60%" in text
    assert "  other              2.00  ##########..............  40%" in text
    assert sum("busy" in line for line in text) == 20 and any("and 5 others" in line for line in text)
    for state, words in (
        ("stale", "no progress for 0:10:00"),
        ("stopped", "stopped 0:10:00 ago"),
        ("finished", "finished"),
    ):
        progress = tally.progress(300, state)
        assert words in lines(progress, "v", 900)[0] and "left" not in lines(progress, "v", 900)[1]


def test_a_tar_that_is_packed_in_part_is_not_finished(root):
    write_atomically(f"{root}/plan.json", b'{"listing": "", "limit": null, "objects_per_shard": 2, "tar": "views.tar"}')
    assert (read(root, 2000).state, read(root, 2000).done) == ("stopped", 2)


def test_the_clock_of_another_machine_may_be_ahead():
    progress = Progress("finished", started=0, updated=1000, total=1, ok=1)
    assert lines(progress, "v", 998)[0] == "v: finished 0:00:00 ago"


def test_the_status_report_of_an_empty_run():
    assert lines(Progress("running", 0, 0, total=7), "v", 0)[1] == f"{'.' * 24}   0%  0 of 7 objects"
