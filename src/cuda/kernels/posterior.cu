// What happens around the passes: images and queries are prepared, the posteriors of shards merged, results finished.
//
// CPU counterparts: src/posterior.rs, and in src/cpu the probes, the transposed tiles and the division by the cover.

// A stored pixel as it lies on the device: floats less their centre, bytes as they are.
__device__ inline float less_centre(float pixel, float centre) {
    return pixel - centre;
}

__device__ inline unsigned char less_centre(unsigned char pixel, float) {
    return pixel;
}

// [image][pixel] to [group][pixel][image]; images past the last are zero.
extern "C" __global__ void NAMED(interleave)(const PIXEL* images, PIXEL* groups, int count, int image_len,
                                             float centre) {
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    size_t group_count = (count + 3) / 4;
    if (i >= group_count * image_len) {
        return;
    }
    size_t group = i / image_len, p = i % image_len;
    for (int image = 0; image < 4; image++) {
        bool present = (int)(4 * group) + image < count;
        groups[4 * i + image] = present ? less_centre(images[(4 * group + image) * image_len + p], centre) : (PIXEL)0;
    }
}

// A pixel x in the units of the images is x * unit + shift in centred stored units.
struct PixelUnits {
    double unit;
    double shift;
    double max_z;
};

// Makes the probes of a batch from the given rows of z [row][pixel], float64 or float32; marks queries that hold
// numbers that are not finite or beyond max_z.
extern "C" __global__ void NAMED(prepare_probes)(const void* z, int z_is_f64, const int* rows, int queries, int mirrors,
                                                 int image_len, int width, PixelUnits units, int expanded,
                                                 float* values, double* exact, unsigned* invalid) {
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= (size_t)queries * image_len) {
        return;
    }
    int query = (int)(i / image_len), p = (int)(i % image_len);
    size_t in = (size_t)rows[query] * image_len + p;
    double given = z_is_f64 ? ((const double*)z)[in] : (double)((const float*)z)[in];
    if (!(fabs(given) <= units.max_z)) {
        atomicOr(&invalid[query], 1u);
        given = 0.0;
    }
    double centred = given * units.unit + units.shift;
    for (int mirror = 0; mirror < mirrors; mirror++) {
        int at = mirror == 0 ? p : mirror_pixel(p, width);
        size_t out = ((size_t)mirror * queries + query) * image_len + at;
        values[out] = (float)(expanded ? -2.0 * centred : centred);
        if (exact != nullptr) {
            exact[out] = centred;
        }
    }
}

// Merges the posteriors of a query's probes over some shards, and writes them for every probe as it numbers its
// windows. Without sums, only the least energies are merged.
extern "C" __global__ void NAMED(merge_shards)(Probes probes, const float* shard_least, const float* shard_sum,
                                               int first_shard, int shards, int all_shards, int count,
                                               int mirror_columns, float* least, float* scale) {
    int k = blockIdx.x * blockDim.x + threadIdx.x, query = blockIdx.y;
    if (k >= count) {
        return;
    }
    float logit_scale = (float)probes.logit_scales[query], best = MAX_FLOAT;
    int mirrored_k = mirror_window(k, mirror_columns);
    for (int mirror = 0; mirror < probes.mirrors; mirror++) {
        size_t row = ((size_t)mirror * probes.queries + query) * all_shards + first_shard;
        for (int shard = 0; shard < shards; shard++) {
            best = fminf(best, shard_least[(row + shard) * count + (mirror == 0 ? k : mirrored_k)]);
        }
    }
    double total = 0.0;
    for (int mirror = 0; mirror < probes.mirrors && shard_sum != nullptr; mirror++) {
        size_t row = ((size_t)mirror * probes.queries + query) * all_shards + first_shard;
        for (int shard = 0; shard < shards; shard++) {
            size_t at = (row + shard) * count + (mirror == 0 ? k : mirrored_k);
            total += (double)shard_sum[at] * exp2_approx((best - shard_least[at]) * logit_scale);
        }
    }
    for (int mirror = 0; mirror < probes.mirrors; mirror++) {
        size_t out = ((size_t)mirror * probes.queries + query) * count + (mirror == 0 ? k : mirrored_k);
        least[out] = best;
        if (shard_sum != nullptr) {
            scale[out] = (float)(1.0 / total);
        }
    }
}

// Sums over shards and mirror images, divided by the cover, in the units of the images, to the given rows of `out`; NaN
// for invalid queries. Queries whose candidates were weighed have their sums in fixed point, in units of `max_abs`.
extern "C" __global__ void NAMED(finish_queries)(Probes probes, const float* shard_sums,
                                                 const long long* candidate_sums, double max_abs,
                                                 const unsigned* cover, const unsigned* invalid, int shards,
                                                 int image_len, int plane, int width, PixelUnits units,
                                                 const int* rows, void* out, int out_is_f64) {
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= (size_t)probes.queries * image_len) {
        return;
    }
    int query = (int)(i / image_len), p = (int)(i % image_len);
    double sum = 0.0;
    if (is_weighed(probes, query)) {
        sum = (double)candidate_sums[i] / FIXED_POINT * max_abs;
    } else {
        for (int mirror = 0; mirror < probes.mirrors; mirror++) {
            const float* rows_of_probe = shard_sums + ((size_t)mirror * probes.queries + query) * shards * image_len;
            int at = mirror == 0 ? p : mirror_pixel(p, width);
            for (int shard = 0; shard < shards; shard++) {
                sum += rows_of_probe[(size_t)shard * image_len + at];
            }
        }
    }
    double value = (sum / cover[p % plane] - units.shift) / units.unit;
    if (invalid[query]) {
        value = __longlong_as_double(0x7ff8000000000000ll);
    }
    size_t to = (size_t)rows[query] * image_len + p;
    if (out_is_f64) {
        ((double*)out)[to] = value;
    } else {
        ((float*)out)[to] = (float)value;
    }
}
