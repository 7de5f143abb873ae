// Masks at small sigma: the scan for candidates, over energies as in `dense_masks.cu`.
//
// CPU counterpart: the scan of the room `sparse` in src/cpu.

// To [probe][shard][mask]: the least energy, starting from `hint` [probe][mask] where there is one; and to `lists` the
// images near it, where there are lists.
extern "C" __global__ void NAMED(mask_scan)(Images images, Probes probes, MirroredMasks mirrored_masks,
                                            MaskWorkspace workspace, const float* hint, float* least,
                                            CandidateLists lists) {
    DYNAMIC_SHARED(F32x4, block_shared);
    Block block(images, probes, workspace, block_shared);
    if (is_in_double(probes, block.query)) {
        return;
    }
    Masks masks = mirrored_masks.of(block.probe / probes.queries);
    float margin = (float)(probes.cutoff_bits / probes.logit_scales[block.query]);
    F32x4* energies = block.at(workspace.masks);
    float* least_so_far = (float*)block.at(workspace.state);
    float* bounds = least_so_far + masks.count;
#pragma unroll 1
    for (int k = threadIdx.x; k < masks.count; k += blockDim.x) {
        least_so_far[k] = hint == nullptr ? MAX_FLOAT : hint[(size_t)block.probe * masks.count + k];
        bounds[k] = candidate_bound(least_so_far[k], margin, probes.error_bound);
    }
    for (int first = block.start; first < block.end; first += 4) {
        mask_energies_in_form(images, probes, masks, block, first, block.at(workspace.tables), energies);
#pragma unroll 1
        for (int k = threadIdx.x; k < masks.count; k += blockDim.x) {
            float best = least_of(energies[k]);
            if (best < least_so_far[k]) {
                least_so_far[k] = best;
                bounds[k] = candidate_bound(best, margin, probes.error_bound);
            }
            if (lists.counts != nullptr && best < bounds[k]) {
                list_candidates(lists, probes, block.probe, k, images.first + first, energies[k], bounds[k]);
            }
        }
    }
    size_t out = block.result_row(images) * masks.count;
#pragma unroll 1
    for (int k = threadIdx.x; k < masks.count && least != nullptr; k += blockDim.x) {
        least[out + k] = least_so_far[k];
    }
}
