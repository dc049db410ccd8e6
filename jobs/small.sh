#!/bin/bash
# Make the small model from an empty disk: render its training set, train it, and score it on objects that it has not
# seen. Each step continues where it was interrupted; run the same command again.
#
#   CC0=assets/cc0 GSO=assets/gso jobs/small.sh            # the sources of the model that is shipped
#   OBJECTS=my/meshes jobs/small.sh                         # any folder of meshes, beside procedural objects
#   PROCEDURAL=96 jobs/small.sh trainer.max_steps=200       # arguments are those of python -m training.finetune
#
# Folders of meshes; sources that are not set are left out:
#   CC0, KAYKIT, FURNITURE, OBJECTS   to train on
#   GSO                               scans to score on, never trained on
# PROCEDURAL: number of procedural objects to train on (default: 4000). OUTPUT: folder of everything (outputs/small).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bin=${BIN:-$PWD/.venv/bin}
[ -x "$bin/python" ] || { echo "error: there is no $bin/python; make install, or name another folder: BIN=…" >&2; exit 2; }
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

procedural=(objects=procedural objects.count="${PROCEDURAL:-4000}" "objects.kinds=[$trained_kinds]")
unseen_kinds=(objects=procedural objects.count=90 objects.seed=1000000 "objects.kinds=[$kinds]")
render procedural "${procedural[@]}"
render unseen_kinds "${unseen_kinds[@]}"
training=$views/procedural families=$views/unseen_kinds
for source in CC0 KAYKIT FURNITURE OBJECTS; do
    folder=${!source:-}
    if [ -z "$folder" ]; then
        echo "$source is not set: training without it"
        continue
    fi
    name=${source,,}
    exclude=() # the unseen families
    [ "$source" != CC0 ] || exclude=("objects.exclude=[$packs]")
    render "$name" objects=folder objects.path="$folder" "${exclude[@]}"
    training+=,$views/$name
done
if [ -n "${CC0:-}" ]; then
    render unseen_packs objects=folder objects.path="$CC0" "objects.include=[$packs]"
    families+=,$views/unseen_packs
fi

"$bin/python" -m training.finetune +experiment=small data.path="'$training'" output="$run" "$@"

# References of the objects that training held out, of the unseen families and of the scans.
held_out=objects.uids=$run/validation.txt
refer procedural "${procedural[@]}" "$held_out"
refer unseen_kinds "${unseen_kinds[@]}"
for source in CC0 KAYKIT FURNITURE OBJECTS; do
    [ -z "${!source:-}" ] || refer "${source,,}" objects=folder objects.path="${!source}" "$held_out"
done
[ -z "${CC0:-}" ] || refer unseen_packs objects=folder objects.path="$CC0" "objects.include=[$packs]"
scored=$training,$families
if [ -n "${GSO:-}" ]; then
    render gso objects=folder objects.path="$GSO"
    refer gso objects=folder objects.path="$GSO"
    scored+=,$views/gso
else
    echo "GSO is not set: no score on scans"
fi
split=$(tr -cd , <<<"$training" | sed 's/,/held_out,/g')held_out$(tr -cd , <<<"${scored#"$training"}" | sed 's/,/,all/g')
"$bin/python" -m inference.evaluate checkpoint="$run/model" run="$run" "views=[$scored]" "split=[$split]" \
    "training=[$training]" "references=[$(printf '%s,' "$references"/*/ | sed 's/\/,/,/g; s/,$//')]" output="$output/scores"
