// What lies around the passes: images and queries made ready, shards merged, results finished.
//
// CPU counterparts: src/posterior.rs, src/cpu/probe.rs, src/cpu/mod.rs.

// How windows of the mirrored image are numbered: columns of a row in reverse order, or as they are where `columns` is 0.
__device__ inline int mirror_window(int k, int columns) {
    return columns == 0 ? k : k - k % columns + (columns - 1 - k % columns);
}

// Position of a pixel in the mirrored image.
__device__ inline int mirror_pixel(int p, int width) {
    return p - p % width + (width - 1 - p % width);
}

// [image][pixel] to [group][pixel][4]; images past the last are zero.
extern "C" __global__ void NAMED(interleave)(const PIXEL* images, PIXEL* fours, int count, int image_len) {
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    size_t groups = (count + 3) / 4;
    if (i >= groups * image_len) {
        return;
    }
    size_t group = i / image_len, p = i % image_len;
    for (int image = 0; image < 4; image++) {
        fours[4 * i + image] = (int)(4 * group) + image < count ? images[(4 * group + image) * image_len + p] : (PIXEL)0;
    }
}

// Stored units of the images: a pixel x is x * unit + shift, centred.
struct Units {
    double unit;
    double shift;
    double largest_z;
};

// Makes the probes of a batch out of the given rows of z [row][pixel], which holds float64 numbers where `wide`; marks
// queries that hold something else than moderate numbers.
extern "C" __global__ void NAMED(prepare)(const void* z, int wide, const int* rows, int queries, int views, int image_len, int width, Units units,
                                   int expanded, float* values, double* exact, unsigned* bad) {
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= (size_t)queries * image_len) {
        return;
    }
    int query = (int)(i / image_len), p = (int)(i % image_len);
    size_t in = (size_t)rows[query] * image_len + p;
    double given = wide ? ((const double*)z)[in] : (double)((const float*)z)[in];
    if (!(fabs(given) <= units.largest_z)) {
        atomicOr(&bad[query], 1u);
        given = 0.0;
    }
    double centred = given * units.unit + units.shift;
    for (int view = 0; view < views; view++) {
        int at = view == 0 ? p : mirror_pixel(p, width);
        size_t out = ((size_t)view * queries + query) * image_len + at;
        values[out] = (float)(expanded ? -2.0 * centred : centred);
        if (exact != nullptr) {
            exact[out] = centred;
        }
    }
}

// Merges the posteriors of a query's probes over all shards, and writes them for either probe as it numbers its windows.
// Without sums, only the least energies are merged.
extern "C" __global__ void NAMED(merge_shards)(Probes probes, const float* least, const float* sum, int first_shard, int shards,
                                        int all_shards, int count, int columns, float* joint, float* scale) {
    int k = blockIdx.x * blockDim.x + threadIdx.x, query = blockIdx.y;
    if (k >= count) {
        return;
    }
    float rate = (float)probes.rates[query], best = LARGEST;
    int mirror = mirror_window(k, columns);
    for (int view = 0; view < probes.views; view++) {
        size_t row = ((size_t)view * probes.queries + query) * all_shards + first_shard;
        for (int shard = 0; shard < shards; shard++) {
            best = fminf(best, least[(row + shard) * count + (view == 0 ? k : mirror)]);
        }
    }
    double total = 0.0;
    for (int view = 0; view < probes.views && sum != nullptr; view++) {
        size_t row = ((size_t)view * probes.queries + query) * all_shards + first_shard;
        for (int shard = 0; shard < shards; shard++) {
            size_t at = (row + shard) * count + (view == 0 ? k : mirror);
            total += (double)sum[at] * power((best - least[at]) * rate);
        }
    }
    for (int view = 0; view < probes.views; view++) {
        size_t out = ((size_t)view * probes.queries + query) * count + (view == 0 ? k : mirror);
        joint[out] = best;
        if (sum != nullptr) {
            scale[out] = (float)(1.0 / total);
        }
    }
}

// Sums over shards and views, divided by how many windows hold a pixel, in the units of the images, to the given rows of
// `out`; NaN for bad queries. Queries that were done
// by lists have their sums in fixed point, in units of `reach`.
extern "C" __global__ void NAMED(finish)(Probes probes, const float* partial, const long long* fixed, double reach,
                                  const unsigned* cover, const unsigned* bad, int shards, int image_len, int plane,
                                  int width, Units units, const int* rows, void* out, int wide) {
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= (size_t)probes.queries * image_len) {
        return;
    }
    int query = (int)(i / image_len), p = (int)(i % image_len);
    double sum = 0.0;
    if (listed(probes, query)) {
        sum = (double)fixed[i] / FIXED * reach;
    } else {
        for (int view = 0; view < probes.views; view++) {
            const float* row = partial + ((size_t)view * probes.queries + query) * shards * image_len;
            int at = view == 0 ? p : mirror_pixel(p, width);
            for (int shard = 0; shard < shards; shard++) {
                sum += row[(size_t)shard * image_len + at];
            }
        }
    }
    double value = (sum / cover[p % plane] - units.shift) / units.unit;
    if (bad[query]) {
        value = __longlong_as_double(0x7ff8000000000000ll);
    }
    size_t to = (size_t)rows[query] * image_len + p;
    if (wide) {
        ((double*)out)[to] = value;
    } else {
        ((float*)out)[to] = (float)value;
    }
}
