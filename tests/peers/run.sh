#!/bin/sh
# Every peer library, live: it makes dictionaries and saves them, load_sae reads them, the numbers are compared; SAELens
# reads our export. Needs the network for the first run. The libraries get an environment of their own in build/.
#   sh tests/peers/run.sh            compares fresh dictionaries, below build/peers
#   sh tests/peers/run.sh --renew    writes them into tests/fixtures/peers, which `make test` compares
set -eu
cd "$(dirname "$0")/../.."

python=.venv/bin/python
peers=build/peers-venv
sources=build/peers-sources
out=build/peers
[ "${1:-}" = --renew ] && out=tests/fixtures/peers

if [ ! -f $peers/.installed ]; then
  $python -m venv $peers
  # torch is pinned: unpinned, a peer would pull another one with its CUDA packages
  $peers/bin/python -m pip install --quiet torch==2.13.0 torchvision==0.28.0 numpy safetensors einops jaxtyping beartype \
    tqdm pyyaml scikit-learn scipy natsort simple-parsing typeguard pillow packaging requests tyro orjson polars
  # --no-deps: their own pins conflict with each other; what an SAE class itself needs is installed above
  $peers/bin/python -m pip install --quiet --no-deps dictionary-learning==0.1.0 sae-lens==6.54.12 eai-sparsify==1.3.3 \
    overcomplete==0.3.0 saev==0.1.0 transformer-lens==3.9.0 visaebench==0.1.0
  touch $peers/.installed
fi

# owner/name commit: not on PyPI, or only in a version without SAEs (vit-prisma 0.1.4) or with an older format (saev)
while read -r repository commit; do
  clone=$sources/${repository#*/}
  if [ ! -f "$clone/COMMIT" ]; then
    git clone --quiet --filter=blob:none "https://github.com/$repository" "$clone"
    git -C "$clone" checkout --quiet "$commit"
    echo "$commit" > "$clone/COMMIT"
  fi
done << 'END'
ExplainableML/sae-for-vlm 69e211dc4d0a31cfb3b3f6f682f78a1890677d5f
OSU-NLP-Group/saev 3d73f1f7122738563404e4c50a98d897aa18a7d0
Prisma-Multimodal/ViT-Prisma aa5ff6ad7c2d596fb78b473a6e33f39d6b872063
END

$python -m tests.peers.exports $out/saelens_export
for library in dictionary_learning sae_for_vlm saelens saelens_export sparsify overcomplete saev_0_1 saev prisma visaebench; do
  SPARSIFY_DISABLE_TRITON=1 $peers/bin/python tests/peers/make_fixtures.py $out --sources $sources $library > $out/log 2>&1 \
    || { cat $out/log; exit 1; }
done
rm -f $out/log
$python -m tests.peers.compare $out

numbers=$out/../peers_metrics/visaebench.safetensors
$peers/bin/python tests/peers/visaebench_numbers.py $numbers > $out/log 2>&1 || { cat $out/log; exit 1; }
rm -f $out/log
$python -m tests.peers.compare_metrics $numbers
