#!/bin/sh
# The chapters on photographs, and their claims for the scoreboard. From the checkout, in its environment:
#   ENCODER=hf:FOLDER JUDGE=hf:FOLDER PICTURES=FOLDER NAME=deit-tiny-imagenette ABOUT='...' sh benchmarks/photographs.sh
# PICTURES holds train/ and val/, each with a folder a class. BLOCKS: a middle and a late block, "5 11" unless said.
set -eu
: "${ENCODER:?}" "${JUDGE:?}" "${PICTURES:?}" "${NAME:?}" "${ABOUT:?}"
set -- ${BLOCKS:-5 11}
middle=$1.resid_post late=$2.resid_post
out=build/photographs/$NAME

run() {
    chapter=$1
    shift
    [ -f "$out/notebooks/$chapter.done" ] && return
    python -m book.tools.run "$chapter" --to "$out" -p encoder "$ENCODER" -p train_images "folder:$PICTURES/train" "$@"
    touch "$out/notebooks/$chapter.done" # a second start goes on at the chapter that failed
}

run 03 -p eval_images "folder:$PICTURES/val" -p sites "$middle,$late" -p expansions 1,4,16 -p k 20 -p steps 400
run 04 -p eval_images "folder:$PICTURES/val" -p judges "$JUDGE" -p sites "$middle,$late" -p expansions 1,4,16 -p k 20 \
    -p sweep 1,10,50 -p steps 400 -p n_bootstrap 1000
run 04a -p site "$late" -p expansions 1,4 -p k 20 -p steps 400 -p n_bootstrap 1000
run 04c -p eval_images "folder:$PICTURES/val" -p site "$late" -p judges "$JUDGE" -p k 20 -p steps 400
run 05 -p eval_images "folder:$PICTURES/val" -p site "$late" -p judges "$JUDGE" -p k 20 -p steps 400
run 11 -p eval_images "folder:$PICTURES/val" -p site "$late" -p judge "$JUDGE" -p k 20 -p steps 200 -p expansion 1
run 12 -p eval_images "folder:$PICTURES/val" -p sites "$middle,$late" -p judge "$JUDGE" -p k 32 -p expansion 4 \
    -p shifts '[]' -p label class -p ordinary '' -p held_out 4 -p ood '[]'
run 13 -p eval_images "folder:$PICTURES/val" -p elsewhere '' -p site "$middle" -p judge "$JUDGE"

python -m book.tools.keep_measured "$NAME" "$out" --about "$ABOUT" --command 'sh benchmarks/photographs.sh'
