// Square windows at small sigma: the scan for candidates, a walk over energies as in `dense_square.cu`.
//
// CPU counterpart: the scan of the room `sparse` in src/cpu.

// Small sigma: the least energy of every window, and the images near it.
struct ScanSink {
    const Warp& warp;
    const Images& images;
    const Probes& probes;
    float* least;
    float* bounds;
    CandidateLists lists;
    int columns;
    float margin;
    Penalties<float> penalties;
    int group_first;

    __device__ void begin(int first, const PixelX4*) {
        penalties = Penalties<float>(images, probes, warp.query, first);
        group_first = images.first + first;
    }

    template <typename Row>
    __device__ void row(int y, const Row& sums) {
#pragma unroll 1
        for (int x = warp.lane; x < columns; x += LANES) {
            int k = y * columns + x;
            F32x4 energies = penalties.on(sums.get(x));
            float best = least_of(energies);
            if (best < least[k]) {
                least[k] = best;
                bounds[k] = candidate_bound(best, margin, probes.error_bound);
            }
            if (lists.counts != nullptr && best < bounds[k]) {
                list_candidates(lists, probes, warp.probe, k, group_first, energies, bounds[k]);
            }
        }
    }

    __device__ void end() {}
};

// To [probe][shard][window]: the least energy, starting from `hint` [probe][window] where there is one; and to `lists`
// the images near it, where there are lists.
extern "C" __global__ void NAMED(square_scan)(Images images, Probes probes, SquareWindows square,
                                              SquareWorkspace workspace, const float* hint, float* least,
                                              CandidateLists lists) {
    DYNAMIC_SHARED(F32x4, block_shared);
    Warp warp(images, probes, workspace, block_shared);
    if (warp.probe >= probes.queries * probes.mirrors || is_in_double(probes, warp.query)) {
        return;
    }
    int count = square.rows * square.columns;
    float margin = (float)(probes.cutoff_bits / probes.logit_scales[warp.query]);
    float* best = (float*)warp.at(workspace.state);
    float* bounds = best + count;
#pragma unroll 1
    for (int k = warp.lane; k < count; k += LANES) {
        best[k] = hint == nullptr ? MAX_FLOAT : hint[(size_t)warp.probe * count + k];
        bounds[k] = candidate_bound(best[k], margin, probes.error_bound);
    }
    __syncwarp();
    ScanSink sink{warp, images, probes, best, bounds, lists, square.columns, margin, Penalties<float>(), 0};
    for_each_row_in_form(images, probes, square, warp, workspace, sink);
    __syncwarp();
    size_t out = warp.result_row(images) * count;
#pragma unroll 1
    for (int k = warp.lane; k < count && least != nullptr; k += LANES) {
        least[out + k] = best[k];
    }
}
