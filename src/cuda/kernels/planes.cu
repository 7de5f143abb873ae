// What a posterior is asked besides the composite: energies of all windows, weights and their sums lie as planes in device
// memory, in float64, for a slice of the images at a time. [probe][group][window or pixel], four images together. Threads
// are windows or pixels, so that neighbours read neighbours; sums over images run in the order of the images, and a slice
// goes on where the one before has stopped, so the bits do not depend on the slices.
//
// CPU counterpart: the room `dense` in src/cpu, whose posteriors stay in the caches.

// The plane of this block's probe and group; a row of blocks is a group, a layer a probe.
template <typename Plane>
__device__ inline Plane* plane_of_block(Plane* planes, int len) {
    return planes + ((size_t)blockIdx.z * gridDim.y + blockIdx.y) * len;
}

__device__ inline int thread_in_row() {
    return blockIdx.x * blockDim.x + threadIdx.x;
}

__device__ inline int groups_of(const Images& images) {
    return (images.count + 3) / 4;
}

// The groups of the slice that belong to a shard.
struct ShardPart {
    int shard;
    int begin;      // first group, within the slice
    int end;
    bool is_first;  // whether the shard begins here

    // `row` counts the shards of the slice.
    __device__ ShardPart(const Images& images, int row) {
        shard = images.first_shard + row;
        int start = shard * images.shard_len - images.first;
        is_first = start >= 0;
        begin = max(start, 0) / 4;
        end = (min(images.count, start + images.shard_len) + 3) / 4;
    }
};

// To [pixel]: squared residuals, summed over channels; those of pixels of z far from all data less z^2.
extern "C" __global__ void NAMED(plane_residuals)(Images images, Probes probes, F64x4* out) {
    int pixel = thread_in_row(), plane = images.height * images.width;
    if (pixel >= plane) {
        return;
    }
    size_t image_len = (size_t)images.channels * plane;
    const PixelX4* pixels = (const PixelX4*)images.pixels + blockIdx.y * image_len;
    ProbeZ<double> z(probes, blockIdx.z * image_len);
    plane_of_block(out, plane)[pixel] = squared_residuals<false>(pixels, z, images.channels, plane, pixel);
}

// A value of z, from which centred pixels that carry weight differ little at small sigma; 0 where z is far from all data.
__device__ inline double near_z(const Probes& probes, size_t value) {
    double z = probes.exact[value];
    return fabs(z) > probes.far_from ? 0.0 : z;
}

// To [pixel]: products of pixels less z with a direction [probe][channel][pixel], summed over channels.
extern "C" __global__ void NAMED(plane_products)(Images images, Probes probes, const double* direction, F64x4* out) {
    int pixel = thread_in_row(), plane = images.height * images.width;
    if (pixel >= plane) {
        return;
    }
    size_t image_len = (size_t)images.channels * plane;
    const PixelX4* pixels = (const PixelX4*)images.pixels + blockIdx.y * image_len;
    F64x4 sum = splat(0.0);
    for (int c = 0; c < images.channels; c++) {
        F32x4 a = centred(pixels[c * plane + pixel]);
        size_t value = blockIdx.z * image_len + c * plane + pixel;
        double v = direction[value], z = near_z(probes, value);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            sum.of[i] = fma(a.of[i] - z, v, sum.of[i]);
        }
    }
    plane_of_block(out, plane)[pixel] = sum;
}

// Rows and columns of a plane.
struct Extent {
    int rows;
    int columns;
};

// Sums of `span` neighbours along a row, or down a column; backwards, those that end at a place, as far as there are any.
extern "C" __global__ void NAMED(plane_sums)(const F64x4* in, Extent from, F64x4* out, Extent to, int span, int down,
                                             int backwards) {
    int place = thread_in_row();
    if (place >= to.rows * to.columns) {
        return;
    }
    int row = place / to.columns, column = place % to.columns, step = backwards ? -1 : 1;
    const F64x4* plane = plane_of_block(in, from.rows * from.columns);
    F64x4 sum = splat(0.0);
    for (int i = 0; i < span; i++) {
        int y = row + (down ? i * step : 0), x = column + (down ? 0 : i * step);
        if (y >= 0 && y < from.rows && x >= 0 && x < from.columns) {
            sum = sum + plane[y * from.columns + x];
        }
    }
    plane_of_block(out, to.rows * to.columns)[place] = sum;
}

// Adds to [mask] what the pieces of a level bring, from its doubling table.
extern "C" __global__ void NAMED(plane_pieces)(MirroredMasks mirrored_masks, int queries, int level, int plane,
                                               const F64x4* table, F64x4* out) {
    Masks masks = mirrored_masks.of(blockIdx.z / queries);
    int k = thread_in_row();
    if (k >= masks.count) {
        return;
    }
    const int* starts = masks.piece_starts + level * (masks.count + 1);
    const F64x4* values = plane_of_block(table, plane);
    F64x4* sums = plane_of_block(out, masks.count);
    F64x4 sum = level == 0 ? splat(0.0) : sums[k];
    for (int piece = starts[k]; piece < starts[k + 1]; piece++) {
        sum = sum + values[masks.pieces[piece]];
    }
    sums[k] = sum;
}

// The doubling table of the level after `level`.
extern "C" __global__ void NAMED(plane_doubles)(int level, int plane, const F64x4* table, F64x4* next) {
    int p = thread_in_row(), half = 1 << level;
    if (p >= plane) {
        return;
    }
    const F64x4* values = plane_of_block(table, plane);
    plane_of_block(next, plane)[p] = p + half < plane ? values[p] + values[p + half] : values[p];
}

// The adjoint of both, from the table of the level above.
extern "C" __global__ void NAMED(plane_members)(MirroredMasks mirrored_masks, int queries, int level, int plane,
                                                const F64x4* of_masks, const F64x4* upper, F64x4* table) {
    Masks masks = mirrored_masks.of(blockIdx.z / queries);
    int p = thread_in_row(), half = 1 << level;
    if (p >= plane) {
        return;
    }
    const int* starts = masks.member_starts + level * (plane + 1);
    const F64x4* values = plane_of_block(of_masks, masks.count);
    F64x4 sum = splat(0.0);
    for (int member = starts[p]; member < starts[p + 1]; member++) {
        sum = sum + values[masks.members[member]];
    }
    if (level + 1 < masks.levels) {
        // A piece of the level above counts for both of its halves.
        const F64x4* above = plane_of_block(upper, plane);
        sum = sum + above[p];
        sum = p >= half ? sum + above[p - half] : sum;
    }
    plane_of_block(table, plane)[p] = sum;
}

// Turns energies [window] into normalised weights, given the least energies and reciprocal sums [probe][window].
extern "C" __global__ void NAMED(plane_weights)(Images images, Probes probes, int windows, const double* least,
                                                const double* scale, F64x4* energies) {
    int k = thread_in_row(), query = blockIdx.z % probes.queries;
    if (k >= windows) {
        return;
    }
    Penalties<double> penalties(images, probes, query, 4 * blockIdx.y);
    F64x4* place = plane_of_block(energies, windows) + k;
    F64x4 of_group = penalties.on(*place);
    size_t window = (size_t)blockIdx.z * windows + k;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        of_group.of[i] = exp2(probes.logit_scales[query] * (least[window] - of_group.of[i])) * scale[window];
    }
    *place = of_group;
}

// Adds to [probe][shard][channel][pixel] the sums of centred pixels times coefficients [pixel]; with `less_z` those of what
// pixels are above z, to the second power with `squares`.
extern "C" __global__ void NAMED(plane_composites)(Images images, Probes probes, const F64x4* coefficients, int less_z,
                                                   int squares, double* sums) {
    int plane = images.height * images.width, image_len = images.channels * plane, value = thread_in_row();
    if (value >= image_len) {
        return;
    }
    ShardPart part(images, blockIdx.y);
    double* place = sums + ((size_t)blockIdx.z * images.shards + part.shard) * image_len + value;
    double sum = part.is_first ? 0.0 : *place;
    double z = less_z ? near_z(probes, (size_t)blockIdx.z * image_len + value) : 0.0;
    const F64x4* of_group = coefficients + (size_t)blockIdx.z * groups_of(images) * plane + value % plane;
    for (int group = part.begin; group < part.end; group++) {
        F32x4 a = centred(((const PixelX4*)images.pixels)[(size_t)group * image_len + value]);
        F64x4 weight = of_group[(size_t)group * plane];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            double pixel = a.of[i] - z;
            sum = fma(weight.of[i], squares ? pixel * pixel : pixel, sum);
        }
    }
    *place = sum;
}

// Sums over shards, to [probe][value]. The second dimension of the grid is that of probes.
extern "C" __global__ void NAMED(plane_totals)(const double* sums, int shards, int len, double* totals) {
    int value = thread_in_row();
    if (value >= len) {
        return;
    }
    double total = 0.0;
    for (int shard = 0; shard < shards; shard++) {
        total += sums[((size_t)blockIdx.y * shards + shard) * len + value];
    }
    totals[(size_t)blockIdx.y * len + value] = total;
}
