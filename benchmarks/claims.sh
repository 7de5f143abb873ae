#!/usr/bin/env bash
# The PSPC paper's claims on CIFAR-10, with the small network that lies in the repository, from sigma 80 to .002.
#
#   benchmarks/claims.sh DATA TEST OUT [N] [Z]      or: make claims DATA=... TEST=... N=256 Z=8
#
# DATA: the 50,000 training images; TEST: held-out images; OUT: a folder for everything. N: noisy images per level (256;
# the paper has 10,000). Z: noisy images per level behind the network's heat maps (8; the paper has 1,000), which take
# about an hour and a half of one core each; with 0, PSPC-Flex takes the Gaussian's maps instead. Every command keeps
# what is done: after a stop, run the same command again. It must run in a clone.
#
# Variables: FEW, images of pictures, samples, fits and patches (N; 16 for patches and LS); LEVELS of Figure 2 (150);
# WINDOWS of a patch study (32); SHARES and EQUAL, candidates of thresholds; CENTRED, ls or
# ls,pca, where PCA-locality takes seconds per image at high noise; SSCD and FID, TorchScript files; PSPC, the command.
set -euo pipefail
data=$1 test=$2 out=$3 n=${4:-256} z=${5:-8}
pspc=${PSPC:-pspc-rs}
net=cifar10-small
images="--data $data --device ${DEVICE:-auto}"
few=${FEW:-$n}
least=$((few < 16 ? few : 16))
shares=${SHARES:-0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9,1}

# The model card: denoising errors on held-out images, network beside the Wiener filter.
$pspc compare $images --target clean --process forward --noise-data "$test" --denoisers $net,gaussian,empirical,pspc_sq \
    --n "$n" --seed 2 --outdir "$out/clean"

# Figures 3, 6 and 13: heat maps by the network's gradients, and those of the Gaussian.
by_network="heatmaps $images --denoiser network --network $net --seed 3"
$pspc $by_network --n-samples 8 --batch 8 --pixel 16,16 --outdir "$out/maps/centre"
$pspc heatmaps $images --denoiser gaussian --n-samples 2 --outdir "$out/maps"
maps=$out/maps/gaussian_heatmaps.npy
every="--heatmaps gaussian=$maps"
if [ "$z" -gt 0 ]; then
    $pspc $by_network --n-samples "$z" --batch "$z" --outdir "$out/maps"
    maps=$out/maps/network_heatmaps.npy
    every="--heatmaps network=$maps $every"
fi
$pspc figure heatmaps $every --outdir "$out/maps"
$pspc figure masks --heatmaps "$maps" --outdir "$out/maps"

# Figures 7 and 15: forward and reverse, the paper's schedules; then maps of the Gaussian, and LS.
$pspc compare $images --target $net --n "$n" --outdir "$out/curves" \
    --denoisers empirical,gaussian,cfdm,pspc_sq,pspc_flex --heatmaps "$maps"
if [ "$z" -gt 0 ]; then
    $pspc compare $images --target $net --n "$n" --outdir "$out/curves" --denoisers flex_gaussian=pspc_flex \
        --heatmaps gaussian
fi
$pspc compare $images --target $net --n "$least" --outdir "$out/curves" --denoisers "${CENTRED:-ls}" --patch-sizes kamb-cifar10-unet
# The same on held-out images, which no training image explains at low noise.
$pspc compare $images --target $net --n "$n" --outdir "$out/held-out" --process forward --noise-data "$test" \
    --denoisers empirical,gaussian,cfdm,pspc_sq,pspc_flex --heatmaps "$maps"

# Figure 2: where the network leaves the optimal denoiser.
$pspc compare $images --target $net --denoisers empirical --process forward --spacing log --n-steps "${LEVELS:-150}" \
    --t-max 100 --t-min 0.01 --n "$n" --outdir "$out/hump"

# Figures 4 and 14: patches of every side against the optimal denoiser, and against the network on its trajectories.
study="patch-study $images --n $least --max-windows ${WINDOWS:-32}"
$pspc $study --outdir "$out/patches/forward"
$pspc $study --outdir "$out/patches/reverse" --process reverse --target $net

# Schedules fitted to the network, with another seed: sides, thresholds, and masks of equal size; Figures 10 to 12.
fit="fit-schedule $images --target $net --process reverse --n $few --seed 1 --outdir $out/fit"
$pspc $fit --name sides --candidates 1,2,3,5,7,9,11,15,19,23,27,full
$pspc $fit --name thresholds --fit pspc_flex --heatmaps "$maps" --candidates "$shares"
$pspc $fit --name equal --fit pspc_flex --heatmaps "$maps" --mask-sizes equal ${EQUAL:+--candidates $EQUAL}
$pspc figure schedules --outdir "$out/fit" --patch-sizes published=cifar10,fitted="$out/fit/sides.json" \
    --thresholds published=cifar10,fitted="$out/fit/thresholds.json"
$pspc compare $images --target $net --n "$few" --outdir "$out/fitted" --denoisers pspc_sq,pspc_flex --heatmaps "$maps" \
    --patch-sizes "$out/fit/sides.json" --thresholds "$out/fit/thresholds.json"
$pspc compare $images --target $net --n "$few" --outdir "$out/fitted" --denoisers equal=pspc_flex --heatmaps "$maps" \
    --thresholds "$out/fit/equal.json"

# Figures 1 and 16 to 23: one noisy image, one column per denoiser. Figure 8: both denoisers on either trajectory.
shown="$net,pspc_flex,pspc_sq,gaussian,cfdm,empirical"
$pspc figure denoised $images --denoisers $shown --heatmaps "$maps" --process reverse --t-idx 6,7,8,9,10,11,12 --n 2 \
    --outdir "$out/pictures"
$pspc figure trajectories $images --denoisers $net,pspc_sq --crossed --n 2 --outdir "$out/pictures"

# Figures 9, 24 and 25: samples from the same noise, 18 steps, and how alike they are.
for D in pspc_sq pspc_flex gaussian cfdm empirical; do
    $pspc sample $images --denoiser $D --heatmaps "$maps" --n-samples "$few" --outdir "$out/samples"
done
$pspc sample $images --denoiser network --network $net --n-samples "$few" --outdir "$out/samples"
of() { for D in "$@"; do printf -- '--samples %s ' "$out/samples/${D}_samples.npy"; done; }
all=$(of network pspc_flex pspc_sq gaussian cfdm empirical)
$pspc figure samples $all --n "$least" --outdir "$out/pictures"
$pspc figure similarity $all --outdir "$out/similarity"
if [ -n "${SSCD:-}" ]; then
    $pspc figure similarity $all --descriptor sscd --sscd "$SSCD" --trust --outdir "$out/similarity"
fi
$pspc figure metrics $all --reference network --data "$data" --outdir "$out/similarity"
if [ -n "${FID:-}" ]; then
    $pspc figure fid $all --features "$FID" --trust --data "$data" --outdir "$out/similarity"
fi
$pspc report "$out/curves"
