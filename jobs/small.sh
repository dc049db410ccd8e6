#!/bin/bash
# Make the small model from an empty disk: render its training set, train it, and score it on objects that it has not
# seen. Each step continues where it was interrupted; run the same command again.
#
#   CC0=… KAYKIT=… FURNITURE=… GSO=… jobs/small.sh          # the sources of the model that is shipped, and composites
#   OBJECTS=my/meshes jobs/small.sh                         # any folder of meshes, beside procedural objects
#   PROCEDURAL=96 COMPOSITE=96 jobs/small.sh trainer.max_steps=200   # arguments are those of python -m training.finetune
#
# Folders of meshes; sources that are not set are left out:
#   CC0, KAYKIT, FURNITURE, OBJECTS   to train on
#   GSO                               scans to score on, never trained on
# PROCEDURAL, COMPOSITE, UNSEEN: number of procedural objects to train on (4000), of composites of random parts to train on
# (4000), and of kinds never seen (90). OUTPUT: folder of everything (outputs/small).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bin=${BIN:-$PWD/.venv/bin}
[ -x "$bin/python" ] || { echo "error: $bin/python: no such file; run make install, or set BIN=… to the folder of another installation" >&2; exit 2; }
output=${OUTPUT:-outputs/small}
views=$output/views references=$output/references run=$output/run

# Families that are never trained on: four packs of CC0 and three kinds of procedural objects.
packs='kaykit_halloween/*,kenney_space/*,quaternius_medieval_weapons/*,quaternius_farm_animals/*'
kinds=airplane,elephant,teapot
trained_kinds=$("$bin/python" -c "from rendering.procedural import KINDS; print(','.join(k for k in KINDS if k not in '$kinds'.split(',')))")

render() { # render NAME ARGUMENTS…: views of a source
    local name=$1
    shift
    "$bin/python" -m pipeline.render +experiment=small output="$views/$name" "$@"
}

refer() { # refer NAME ARGUMENTS…: views of the objects of a source from a grid of cameras, to find the pose of a picture
    local name=$1
    shift
    "$bin/python" -m pipeline.render +experiment=references renderer.lighting=varied renderer.cull_backfaces=false \
        output="$references/$name" "$@"
}

join() { # with commas
    local IFS=,
    echo "$*"
}

objects_of() { # objects_of NAME: set `arguments` to those of a source
    case $1 in
        procedural) arguments=(objects=procedural objects.count="${PROCEDURAL:-4000}" "objects.kinds=[$trained_kinds]") ;;
        composite) arguments=(objects=procedural objects.count="${COMPOSITE:-4000}" 'objects.kinds=[composite]' objects.seed=2000000) ;;
        unseen_kinds)
            arguments=(objects=procedural objects.count="${UNSEEN:-90}" objects.seed=1000000 "objects.kinds=[$kinds]")
            ;;
        cc0) arguments=(objects=folder objects.path="$CC0" "objects.exclude=[$packs]") ;;
        unseen_packs) arguments=(objects=folder objects.path="$CC0" "objects.include=[$packs]") ;;
        kaykit) arguments=(objects=folder objects.path="$KAYKIT") ;;
        furniture) arguments=(objects=folder objects.path="$FURNITURE") ;;
        objects) arguments=(objects=folder objects.path="$OBJECTS") ;;
        gso) arguments=(objects=folder objects.path="$GSO") ;;
    esac
}

trained=(procedural composite) unseen=(unseen_kinds)
for source in CC0 KAYKIT FURNITURE OBJECTS; do
    if [ -n "${!source:-}" ]; then trained+=("${source,,}"); else echo "$source is not set: training without it"; fi
done
[ -z "${CC0:-}" ] || unseen+=(unseen_packs)
if [ -n "${GSO:-}" ]; then unseen+=(gso); else echo "GSO is not set: no score on scans"; fi

for name in "${trained[@]}" "${unseen[@]}"; do
    objects_of "$name"
    render "$name" "${arguments[@]}"
done
"$bin/python" -m training.finetune +experiment=small \
    data.path="'$(join "${trained[@]/#/$views/}")'" output="$run" "$@"

# References of the objects that training held out, and of all others that it has not seen.
splits=() scored=()
for name in "${trained[@]}" "${unseen[@]}"; do
    objects_of "$name"
    held_out=() split=all
    if [[ " ${trained[*]} " == *" $name "* ]]; then
        held_out=(objects.uids="$run/validation.txt") split=held_out
        # A small source may have no held-out object.
        cut -d, -f1 "$views/$name/objects.csv" | grep -xFf "$run/validation.txt" > /dev/null || continue # -q would break the pipe
    fi
    refer "$name" "${arguments[@]}" "${held_out[@]}"
    scored+=("$name") splits+=("$split")
done
"$bin/python" -m inference.evaluate checkpoint="$run/model" run="$run" output="$output/scores" \
    "views=[$(join "${scored[@]/#/$views/}")]" "split=[$(join "${splits[@]}")]" \
    "references=[$(join "${scored[@]/#/$references/}")]" "training=[$(join "${trained[@]/#/$views/}")]"
