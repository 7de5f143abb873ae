// Masks: their energies, pass 1 and pass 2. A block owns a probe and walks over the images of a shard, four
// at once; threads are pixels in some stages and masks in others. Only two of
// the doubling tables (masks.cu) exist at a time.
//
// CPU counterpart: the room `dense` in src/cpu.

// A block's workspace. Lengths are in F32x4.
struct MaskWorkspace {
    F32x4* slabs;
    u64 slab_len;   // of a block
    Offset tables;  // [2][plane]
    Offset masks;   // [count]: energies, then weights
    Offset state;   // pass 1: the softmax of every mask; scan: its bounds; pass 2: the weighted sum of pixels
};

// Which block this is and what it works on.
struct Block {
    int probe;
    int query;
    int shard;  // within the step
    int start;  // images of the shard, within the step
    int end;
    F32x4* shared;
    F32x4* slab;

    __device__ Block(const Images& images, const Probes& probes, const MaskWorkspace& workspace, F32x4* block_shared) {
        probe = blockIdx.x;
        query = probe % probes.queries;
        shard = blockIdx.y;
        start = shard * images.shard_len;
        end = min(images.count, start + images.shard_len);
        shared = block_shared;
        slab = workspace.slabs + ((u64)blockIdx.y * gridDim.x + blockIdx.x) * workspace.slab_len;
    }

    __device__ F32x4* at(Offset offset) const {
        return (offset.shared ? shared : slab) + offset.at;
    }

    // The row of its results: [probe][shard].
    __device__ size_t result_row(const Images& images) const {
        return (size_t)probe * images.shards + images.first_shard + shard;
    }
};

// The energies of a group on every mask, to `out`; a thread writes and reads only its own masks there.
template <bool EXPANDED>
__device__ void mask_energies(const PixelX4* pixels, ProbeZ<REAL> z, int channels, int plane, const Masks& masks,
                              RealX4* tables, RealX4* out, const Penalties<REAL>& penalties) {
    RealX4* table = tables;
    RealX4* next = tables + plane;
#pragma unroll 1
    for (int p = threadIdx.x; p < plane; p += blockDim.x) {
        table[p] = squared_residuals<EXPANDED>(pixels, z, channels, plane, p);
    }
    for (int level = 0; level < masks.levels; level++) {
        __syncthreads();
        const int* starts = masks.piece_starts + level * (masks.count + 1);
#pragma unroll 1
        for (int k = threadIdx.x; k < masks.count; k += blockDim.x) {
            RealX4 sum = level == 0 ? splat((REAL)0) : out[k];
            for (int piece = starts[k]; piece < starts[k + 1]; piece++) {
                sum = sum + table[masks.pieces[piece]];
            }
            out[k] = level + 1 < masks.levels ? sum : penalties.on(sum);
        }
        if (level + 1 < masks.levels) {
            int half = 1 << level;
#pragma unroll 1
            for (int p = threadIdx.x; p < plane; p += blockDim.x) {
                next[p] = p + half < plane ? table[p] + table[p + half] : table[p];
            }
            RealX4* swap = table;
            table = next;
            next = swap;
        }
    }
    // The first table of the next group may lie where this group's last one is still being read.
    __syncthreads();
}

__device__ inline void mask_energies_in_form(const Images& images, const Probes& probes, const Masks& masks,
                                             const Block& block, int first, RealX4* tables, RealX4* out) {
    int plane = images.height * images.width;
    size_t image_len = (size_t)images.channels * plane;
    const PixelX4* pixels = (const PixelX4*)images.pixels + first / 4 * image_len;
    ProbeZ<REAL> z(probes, block.probe * image_len);
    Penalties<REAL> penalties(images, probes, block.query, first);
    if (probes.expanded && !IS_DOUBLE) {
        mask_energies<true>(pixels, z, images.channels, plane, masks, tables, out, penalties);
    } else {
        mask_energies<false>(pixels, z, images.channels, plane, masks, tables, out, penalties);
    }
}

// To [probe][shard][mask]: the least energy and the sum of weights relative to it.
extern "C" __global__ void NAMED(mask_posteriors)(Images images, Probes probes, MirroredMasks mirrored_masks,
                                                  MaskWorkspace workspace, REAL* least, float* sum) {
    DYNAMIC_SHARED(F32x4, block_shared);
    Block block(images, probes, workspace, block_shared);
    if (is_left_out(probes, block.query)) {
        return;
    }
    Masks masks = mirrored_masks.of(block.probe / probes.queries);
    REAL logit_scale = (REAL)probes.logit_scales[block.query], margin = negligible_bits(images) / logit_scale;
    RealX4* energies = (RealX4*)block.at(workspace.masks);
    OnlineSoftmax<REAL> softmax(block.at(workspace.state), masks.count);
#pragma unroll 1
    for (int k = threadIdx.x; k < masks.count; k += blockDim.x) {
        softmax.start(k);
    }
    for (int first = block.start; first < block.end; first += 4) {
        mask_energies_in_form(images, probes, masks, block, first, (RealX4*)block.at(workspace.tables), energies);
#pragma unroll 1
        for (int k = threadIdx.x; k < masks.count; k += blockDim.x) {
            if (is_near(energies[k], softmax.least[k], margin)) {
                softmax.update(k, energies[k], logit_scale);
            }
        }
    }
    size_t out = block.result_row(images) * masks.count;
#pragma unroll 1
    for (int k = threadIdx.x; k < masks.count; k += blockDim.x) {
        least[out + k] = softmax.least[k];
        sum[out + k] = softmax.sum[k] + softmax.rest[k];
    }
}

// The weights of four images on a mask; they take the place of its energies.
__device__ inline F32x4* weights_at(RealX4* energies, int mask) {
    return (F32x4*)(energies + mask);
}

// The adjoint of the sums over masks: writes to one of the two tables at every pixel the sum of the weights of the
// masks that hold it, and returns that table. Every pixel reads which masks have a piece there, so that nothing is
// scattered.
__device__ inline F32x4* mask_adjoint(const Masks& masks, RealX4* energies_then_weights, F32x4* tables, int plane) {
    F32x4* table = tables;
    F32x4* upper = tables + plane;
    for (int level = masks.levels - 1; level >= 0; level--) {
        __syncthreads();
        const int* starts = masks.member_starts + level * (plane + 1);
        int half = 1 << level;
#pragma unroll 1
        for (int p = threadIdx.x; p < plane; p += blockDim.x) {
            F32x4 sum = splat(0.0f);
            for (int member = starts[p]; member < starts[p + 1]; member++) {
                sum = sum + *weights_at(energies_then_weights, masks.members[member]);
            }
            if (level + 1 < masks.levels) {
                // A piece of the level above counts for both of its halves.
                sum = sum + upper[p];
                sum = p >= half ? sum + upper[p - half] : sum;
            }
            table[p] = sum;
        }
        F32x4* swap = table;
        table = upper;
        upper = swap;
    }
    return upper;
}

// Adds the sums to the total and starts them over. A thread does so for the pixels it owns.
__device__ inline void add_to_total(float* pixel_sums, float* total, int channels, int plane) {
#pragma unroll 1
    for (int p = threadIdx.x; p < plane; p += blockDim.x) {
        for (int i = p; i < channels * plane; i += plane) {
            total[i] += pixel_sums[i];
            pixel_sums[i] = 0.0f;
        }
    }
}

// To [probe][shard][channel][pixel]: the weighted sum of the shard's centred pixels.
extern "C" __global__ void NAMED(mask_composites)(Images images, Probes probes, MirroredMasks mirrored_masks,
                                                  MaskWorkspace workspace, Normaliser normaliser, float* shard_sums) {
    DYNAMIC_SHARED(F32x4, block_shared);
    Block block(images, probes, workspace, block_shared);
    if (is_left_out(probes, block.query)) {
        return;
    }
    Masks masks = mirrored_masks.of(block.probe / probes.queries);
    int plane = images.height * images.width, image_len = images.channels * plane;
    REAL logit_scale = (REAL)probes.logit_scales[block.query], margin = probes.cutoff_bits / logit_scale;
    const REAL* least = normaliser.least + (size_t)block.probe * masks.count;
    const float* scale = normaliser.scale + (size_t)block.probe * masks.count;
    RealX4* energies_then_weights = (RealX4*)block.at(workspace.masks);
    float* pixel_sums = (float*)block.at(workspace.state);
    float* total = shard_sums + block.result_row(images) * image_len;
    // A thread adds to the pixels it owns and to no others.
#pragma unroll 1
    for (int p = threadIdx.x; p < plane; p += blockDim.x) {
        for (int c = 0; c < images.channels; c++) {
            pixel_sums[c * plane + p] = 0.0f;
            total[c * plane + p] = 0.0f;
        }
    }
    for (int first = block.start; first < block.end; first += 4) {
        if ((first - block.start) % (4 * GROUPS_PER_SUM) == 0) {
            add_to_total(pixel_sums, total, images.channels, plane);
        }
        mask_energies_in_form(images, probes, masks, block, first, (RealX4*)block.at(workspace.tables),
                              energies_then_weights);
        int near = 0;
#pragma unroll 1
        for (int k = threadIdx.x; k < masks.count; k += blockDim.x) {
            RealX4 energies = energies_then_weights[k];
            bool active = is_near(energies, least[k], margin);
            *weights_at(energies_then_weights, k) =
                active ? weights(energies, least[k], scale[k], logit_scale) : splat(0.0f);
            near |= active;
        }
        if (!__syncthreads_or(near)) {
            continue;
        }
        const PixelX4* pixels = (const PixelX4*)images.pixels + first / 4 * (size_t)image_len;
        const F32x4* coefficients = mask_adjoint(masks, energies_then_weights, block.at(workspace.tables), plane);
#pragma unroll 1
        for (int p = threadIdx.x; p < plane; p += blockDim.x) {
            for (int c = 0; c < images.channels; c++) {
                pixel_sums[c * plane + p] += weighted(coefficients[p], centred(pixels[c * plane + p]));
            }
        }
        // The tables are overwritten for the next group.
        __syncthreads();
    }
    add_to_total(pixel_sums, total, images.channels, plane);
}
