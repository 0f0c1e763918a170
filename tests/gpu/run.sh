#!/usr/bin/env bash
# Checks and measures the project on a real GPU, in at most 8 minutes; writes one JSON of results and figures.
#
#   tests/gpu/run.sh [FILE.json]              # on a machine with an NVIDIA GPU; default file: build/gpu/gpu.json
#   DEVICE=cpu tests/gpu/run.sh               # rehearsal without one: the same steps, small sizes
#   PYTHON=python3.12 WHEELS=folder ...       # another Python; packages from a folder of wheels instead of the index
#
# Packages that are missing are installed into build/gpu/packages (see packages.py); torch is never installed or replaced.
set -uo pipefail
cd "$(dirname "$0")/../.."

result=${1:-build/gpu/gpu.json}
python=${PYTHON:-python3}
device=${DEVICE:-cuda}
work=build/gpu
mkdir -p "$work/packages" "$(dirname "$result")"
rm -f "$work"/*.json "$work"/*.status
export PYTHONPATH=$PWD:$PWD/$work/packages${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1

"$python" -c "import sys, torch; sys.exit(sys.version_info < (3, 11) or '$device' == 'cuda' and not torch.cuda.is_available())" || {
    echo "$python is older than 3.11 or has no torch that sees a GPU. Install a CUDA build of torch, or rehearse with DEVICE=cpu."; exit 2; }
"$python" tests/gpu/packages.py "$work/packages" ${WHEELS:+"$WHEELS"} || exit 2
export HF_HUB_OFFLINE=1

began=$SECONDS
step() {  # step NAME SECONDS COMMAND...: its exit status and time go into the result; a failure does not stop the rest
    local name=$1 limit=$2 start=$SECONDS; shift 2
    printf '\n=== %s\n' "$name"
    timeout --kill-after=5 "$limit" "$@"; local status=$?
    echo "$status $((SECONDS - start)) $limit" > "$work/$name.status"
}

if [[ $device == cuda ]]; then
    limit=480
    step cuda_tests 150 "$python" -m pytest -q -n 8 --dist load tests/cuda
    step extraction_b32 70 "$python" benchmarks/extraction.py --encoder open_clip:ViT-B-32/none --images 4096 --batch 256 \
        --workers 12 --rounds 2 --rows 0 --contestants limit ours decoding jpegs --json "$work/extraction_b32.json"
    step extraction_l14 90 "$python" benchmarks/extraction.py --encoder open_clip:ViT-L-14-336/none --images 768 \
        --batch 128 --workers 12 --rounds 2 --rows 0 --contestants limit ours decoding jpegs --json "$work/extraction_l14.json"
    step sae_training 80 "$python" benchmarks/sae_training.py --device cuda --d 1024 --width 65536 --k 32 --rounds 5 \
        --kinds batchtopk topk --json "$work/sae_training.json"
    step steering 50 "$python" benchmarks/steered_answers.py --rounds 2 --dtypes float16 --llava tiny middle \
        --json "$work/steering.json"
    step score 30 "$python" benchmarks/monosemanticity.py --device cuda --images 50000 --features 8192 --every 2000 \
        --json "$work/score.json"
else  # without the notebooks, which `make test` runs on the emulated device
    limit=1200
    export OMP_NUM_THREADS=1
    step cuda_tests 600 "$python" -m pytest -q tests/cuda --ignore-glob '*notebooks_on_cuda.py'
    step extraction 150 "$python" benchmarks/extraction.py --encoder tiny --images 64 --batch 32 --workers 1 --rounds 1 \
        --rows 16384 --json "$work/extraction.json"
    step sae_training 150 "$python" benchmarks/sae_training.py --d 64 --width 512 --k 8 --batch 512 --rounds 2 \
        --kinds batchtopk topk --json "$work/sae_training.json"
    step steering 150 "$python" benchmarks/steered_answers.py --images 1 --features 4 --rounds 1 --dtypes float32 --llava tiny \
        --json "$work/steering.json"
    step score 100 "$python" benchmarks/monosemanticity.py --images 500 --features 128 --json "$work/score.json"
fi
"$python" tests/gpu/summary.py "$work" "$result" "$((SECONDS - began))" "$limit"
