// Masks. A block owns a probe and walks over the images of a shard, four at once; threads are pixels in some stages and
// masks in others. A mask is a list of pieces, 2^level pixels of a row each, read from doubling tables: table 0 is the plane
// of errors, and table `level` holds at every pixel the sum of the 2^level pixels from there on (src/runs.rs). Only two
// tables exist at a time.
//
// CPU counterparts: src/cpu/energy.rs, weigh.rs, candidates.rs, spread.rs, gather.rs.

// The pieces of all masks, by level and mask, and, for the way back, the masks that have a piece at a pixel.
struct Masks {
    const int* starts;   // [levels][count + 1], into `pieces`
    const int* pieces;   // flat positions of first pixels
    const int* owners;   // [levels][plane + 1], into `members`
    const int* members;  // masks
    int levels;
    int count;
};

// The masks as queries see them and as flipped queries do.
struct MaskViews {
    Masks plain;
    Masks mirrored;

    __device__ Masks of(int view) const {
        return view == 0 ? plain : mirrored;
    }
};

struct MaskSpace {
    Four* slabs;
    u64 slab;       // Fours a block has of them
    Place tables;   // [2][plane]
    Place windows;  // [count]: energies, then weights
    Place state;    // pass 1: three floats a mask; pass 2: the weighted sum of pixels
};

struct Block {
    int probe;
    int query;
    int shard;
    int start;
    int end;
    Four* shared;
    Four* slab;

    __device__ Block(const Images& images, const Probes& probes, const MaskSpace& space, Four* workspace) {
        probe = blockIdx.x;
        query = probe % probes.queries;
        shard = blockIdx.y;
        start = shard * images.shard;
        end = min(images.count, start + images.shard);
        shared = workspace;
        slab = space.slabs + ((u64)blockIdx.y * gridDim.x + blockIdx.x) * space.slab;
    }

    __device__ Four* at(Place place) const {
        return (place.shared ? shared : slab) + place.at;
    }

    // Where its results belong: [probe][shard].
    __device__ size_t row(const Images& images) const {
        return (size_t)probe * images.shards + images.first_shard + shard;
    }
};

// The energies of a group on every mask, to `out`; a thread writes and reads only its own masks there.
template <bool EXPANDED>
__device__ void mask_energies(const Fours* fours, const float* z, int channels, int plane, const Masks& masks,
                              Four* tables, Four* out, int valid) {
    Four* table = tables;
    Four* next = tables + plane;
#pragma unroll 1
    for (int p = threadIdx.x; p < plane; p += blockDim.x) {
        table[p] = errors<EXPANDED>(fours, z, channels, plane, p);
    }
    for (int level = 0; level < masks.levels; level++) {
        __syncthreads();
        const int* starts = masks.starts + level * (masks.count + 1);
#pragma unroll 1
        for (int k = threadIdx.x; k < masks.count; k += blockDim.x) {
            Four sum = level == 0 ? four(0.0f) : out[k];
            for (int piece = starts[k]; piece < starts[k + 1]; piece++) {
                sum = sum + table[masks.pieces[piece]];
            }
            out[k] = level + 1 < masks.levels ? sum : only_images(sum, valid);
        }
        if (level + 1 < masks.levels) {
            int half = 1 << level;
#pragma unroll 1
            for (int p = threadIdx.x; p < plane; p += blockDim.x) {
                next[p] = p + half < plane ? table[p] + table[p + half] : table[p];
            }
            Four* swap = table;
            table = next;
            next = swap;
        }
    }
    // The first table of the next group may lie where this group's last one is still being read.
    __syncthreads();
}

__device__ inline void energies_in_form(const Images& images, const Probes& probes, const Masks& masks, const Block& block,
                                 int first, Four* tables, Four* out) {
    int plane = images.height * images.width;
    size_t image_len = (size_t)images.channels * plane;
    const Fours* fours = (const Fours*)images.pixels + first / 4 * image_len;
    const float* z = probes.values + block.probe * image_len;
    int valid = min(4, images.count - first);
    if (probes.expanded) {
        mask_energies<true>(fours, z, images.channels, plane, masks, tables, out, valid);
    } else {
        mask_energies<false>(fours, z, images.channels, plane, masks, tables, out, valid);
    }
}

// To [probe][shard][mask]: the least energy and the sum of weights relative to it.
extern "C" __global__ void NAMED(mask_posteriors)(Images images, Probes probes, MaskViews views, MaskSpace space, float* least, float* sum) {
    DYNAMIC_SHARED(Four, workspace);
    Block block(images, probes, space, workspace);
    if (listed(probes, block.query)) {
        return;
    }
    Masks masks = views.of(block.probe / probes.queries);
    float rate = (float)probes.rates[block.query], margin = INVISIBLE / rate;
    Four* energies = block.at(space.windows);
    State state(block.at(space.state), masks.count);
#pragma unroll 1
    for (int k = threadIdx.x; k < masks.count; k += blockDim.x) {
        state.start(k);
    }
    for (int first = block.start; first < block.end; first += 4) {
        energies_in_form(images, probes, masks, block, first, block.at(space.tables), energies);
#pragma unroll 1
        for (int k = threadIdx.x; k < masks.count; k += blockDim.x) {
            if (least_of(energies[k]) < state.least[k] + margin) {
                state.absorb(k, energies[k], rate);
            }
        }
    }
    size_t out = block.row(images) * masks.count;
#pragma unroll 1
    for (int k = threadIdx.x; k < masks.count; k += blockDim.x) {
        least[out + k] = state.least[k];
        sum[out + k] = state.sum[k] + state.rest[k];
    }
}

// To [probe][shard][mask]: the least energy, starting from `hint` [probe][mask] where there is one; and to `list` the images
// near it, where there is a list.
extern "C" __global__ void NAMED(mask_scan)(Images images, Probes probes, MaskViews views, MaskSpace space, const float* hint, float* least,
                          Candidates list) {
    DYNAMIC_SHARED(Four, workspace);
    Block block(images, probes, space, workspace);
    Masks masks = views.of(block.probe / probes.queries);
    float margin = (float)(probes.cutoff / probes.rates[block.query]);
    Four* energies = block.at(space.windows);
    float* best = (float*)block.at(space.state);
#pragma unroll 1
    for (int k = threadIdx.x; k < masks.count; k += blockDim.x) {
        best[k] = hint == nullptr ? LARGEST : hint[(size_t)block.probe * masks.count + k];
    }
    for (int first = block.start; first < block.end; first += 4) {
        energies_in_form(images, probes, masks, block, first, block.at(space.tables), energies);
#pragma unroll 1
        for (int k = threadIdx.x; k < masks.count; k += blockDim.x) {
            best[k] = fminf(best[k], least_of(energies[k]));
            float bound = candidate_bound(best[k], margin);
            if (list.counts != nullptr && least_of(energies[k]) < bound) {
                list_candidates(list, probes, block.probe, k, images.first + first, energies[k], bound);
            }
        }
    }
    size_t out = block.row(images) * masks.count;
#pragma unroll 1
    for (int k = threadIdx.x; k < masks.count && least != nullptr; k += blockDim.x) {
        least[out + k] = best[k];
    }
}

// Writes to one of the two tables at every pixel the sum of the weights of the masks that hold it, and returns that table.
__device__ inline Four* spread(const Masks& masks, const Four* weights, Four* tables, int plane) {
    Four* table = tables;
    Four* upper = tables + plane;
    for (int level = masks.levels - 1; level >= 0; level--) {
        __syncthreads();
        const int* owners = masks.owners + level * (plane + 1);
        int half = 1 << level;
#pragma unroll 1
        for (int p = threadIdx.x; p < plane; p += blockDim.x) {
            Four sum = four(0.0f);
            for (int owner = owners[p]; owner < owners[p + 1]; owner++) {
                sum = sum + weights[masks.members[owner]];
            }
            if (level + 1 < masks.levels) {
                // A piece of the level above counts for both of its halves.
                sum = sum + upper[p];
                sum = p >= half ? sum + upper[p - half] : sum;
            }
            table[p] = sum;
        }
        Four* swap = table;
        table = upper;
        upper = swap;
    }
    return upper;
}

// To [probe][shard][channel][pixel]: the weighted sum of the shard's centred pixels.
extern "C" __global__ void NAMED(mask_composites)(Images images, Probes probes, MaskViews views, MaskSpace space, Normaliser normaliser,
                                float* partial) {
    DYNAMIC_SHARED(Four, workspace);
    Block block(images, probes, space, workspace);
    if (listed(probes, block.query)) {
        return;
    }
    Masks masks = views.of(block.probe / probes.queries);
    int plane = images.height * images.width, image_len = images.channels * plane;
    float rate = (float)probes.rates[block.query], margin = probes.cutoff / rate;
    const float* least = normaliser.least + (size_t)block.probe * masks.count;
    const float* scale = normaliser.scale + (size_t)block.probe * masks.count;
    Four* windows = block.at(space.windows);
    float* sums = (float*)block.at(space.state);
    // A thread adds to the pixels it owns and to no others.
#pragma unroll 1
    for (int p = threadIdx.x; p < plane; p += blockDim.x) {
        for (int c = 0; c < images.channels; c++) {
            sums[c * plane + p] = 0.0f;
        }
    }
    for (int first = block.start; first < block.end; first += 4) {
        energies_in_form(images, probes, masks, block, first, block.at(space.tables), windows);
        int near = 0;
#pragma unroll 1
        for (int k = threadIdx.x; k < masks.count; k += blockDim.x) {
            bool live = least_of(windows[k]) < least[k] + margin;
            windows[k] = live ? weights(windows[k], least[k], scale[k], rate) : four(0.0f);
            near |= live;
        }
        if (!__syncthreads_or(near)) {
            continue;
        }
        const Fours* fours = (const Fours*)images.pixels + first / 4 * (size_t)image_len;
        const Four* coefficients = spread(masks, windows, block.at(space.tables), plane);
#pragma unroll 1
        for (int p = threadIdx.x; p < plane; p += blockDim.x) {
            for (int c = 0; c < images.channels; c++) {
                sums[c * plane + p] += weighted(coefficients[p], centred(fours[c * plane + p]));
            }
        }
        // The tables are written anew for the next group.
        __syncthreads();
    }
    size_t out = block.row(images) * image_len;
#pragma unroll 1
    for (int p = threadIdx.x; p < plane; p += blockDim.x) {
        for (int c = 0; c < images.channels; c++) {
            partial[out + c * plane + p] = sums[c * plane + p];
        }
    }
}
