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

// Whether a float less its centre is further away than any was when the images were checked, or is not a number.
__device__ inline bool is_changed(float pixel, float reach) {
    return !(fabsf(pixel) <= reach);
}

__device__ inline bool is_changed(unsigned char, float) {
    return false;
}

// [image][pixel] to [group][pixel][image]; images past the last are zero. Notes whether a pixel has changed since the
// images were checked.
extern "C" __global__ void NAMED(interleave)(const PIXEL* images, PIXEL* groups, int count, int image_len,
                                             float centre, float reach, unsigned* changed) {
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    size_t group_count = (count + 3) / 4;
    if (i >= group_count * image_len) {
        return;
    }
    size_t group = i / image_len, p = i % image_len;
    for (int image = 0; image < 4; image++) {
        bool present = (int)(4 * group) + image < count;
        PIXEL pixel = present ? less_centre(images[(4 * group + image) * image_len + p], centre) : (PIXEL)0;
        if (is_changed(pixel, reach)) {
            atomicOr(changed, 1u);
        }
        groups[4 * i + image] = pixel;
    }
}

// The images of a data set on the device with the given indices, in groups of their own; images past the last are zero.
extern "C" __global__ void NAMED(gather)(const PIXEL* data_set, const unsigned* indices, PIXEL* groups, int count,
                                         int image_len) {
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    size_t group_count = (count + 3) / 4;
    if (i >= group_count * image_len) {
        return;
    }
    size_t group = i / image_len, p = i % image_len;
    for (int image = 0; image < 4; image++) {
        PIXEL pixel = 0;
        if ((int)(4 * group) + image < count) {
            size_t index = indices[4 * group + image];
            pixel = data_set[4 * (index / 4 * image_len + p) + index % 4];
        }
        groups[4 * i + image] = pixel;
    }
}

// A pixel x in the units of the images is x * unit + shift in centred stored units.
struct PixelUnits {
    double unit;
    double shift;
    double max_z;
};

// Added to the candidates of a query that is far from the data, for which images all lie in one direction: the list
// would be too long.
#define TOO_MANY 0x80000000u

// Makes the probes of a batch from the given rows of z [row][pixel], float64 or float32. Marks queries that hold numbers
// that are not finite or beyond max_z; where candidates are counted, those that are far from the data: their logits are
// too large for float32; and those of which an energy of up to `per_reach` (reach + 2 |z|) may be too large for float32
// beside a prior that cancels it.
extern "C" __global__ void NAMED(prepare_probes)(const void* z, int z_is_f64, const int* rows, int image_len, int width,
                                                 PixelUnits units, Probes probes, double reach, double per_reach,
                                                 float* values, double* exact, unsigned* counts) {
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    int queries = probes.queries;
    if (i >= (size_t)queries * image_len) {
        return;
    }
    int query = (int)(i / image_len), p = (int)(i % image_len);
    size_t in = (size_t)rows[query] * image_len + p;
    double given = z_is_f64 ? ((const double*)z)[in] : (double)((const float*)z)[in];
    if (!(fabs(given) <= units.max_z)) {
        atomicOr(&probes.marks[query], INVALID);
        given = 0.0;
    }
    double centred = given * units.unit + units.shift;
    if (counts != nullptr && fabs(centred) > probes.far_from) {
        atomicOr(&counts[query], TOO_MANY);
        atomicOr(&probes.marks[query], IN_DOUBLE);
    }
    if (per_reach * (reach + 2.0 * fabs(centred)) * probes.logit_scales[query] > probes.float_bits) {
        atomicOr(&probes.marks[query], IN_DOUBLE);
    }
    for (int mirror = 0; mirror < probes.mirrors; mirror++) {
        int at = mirror == 0 ? p : mirror_pixel(p, width);
        size_t out = ((size_t)mirror * queries + query) * image_len + at;
        values[out] = (float)(probes.expanded ? -2.0 * centred : centred);
        exact[out] = centred;
    }
}

// The posteriors of some shards, [probe][shard][window], and how a query and its mirror image number their windows.
template <typename Real>
struct ShardPosteriors {
    const Real* least;
    const float* sum;
    int first_shard;
    int shards;
    int all_shards;
    int count;
    int mirror_columns;

    // Calls `visit(at)` for window k of every shard and mirror image.
    template <typename Visit>
    __device__ void for_each(const Probes& probes, int query, int k, Visit visit) const {
        for_each_in_shards(probes, query, k, first_shard, shards, all_shards, count, mirror_columns, visit);
    }
};

// Merges the posteriors of a query's probes, and writes them for every probe as it numbers its windows. Without sums,
// only the least energies are merged. Returns the least energy.
template <typename Real>
__device__ Real merge(Probes probes, const ShardPosteriors<Real>& from, int query, int k, Real* least, float* scale) {
    Real logit_scale = (Real)probes.logit_scales[query], best = (Real)MAX_FLOAT;
    from.for_each(probes, query, k, [&](size_t at) { best = lesser(best, from.least[at]); });
    double total = 0.0;
    if (from.sum != nullptr) {
        from.for_each(probes, query, k, [&](size_t at) {
            total += (double)from.sum[at] * weight_ratio(best - from.least[at], logit_scale);
        });
    }
    for (int mirror = 0; mirror < probes.mirrors; mirror++) {
        size_t probe = (size_t)mirror * probes.queries + query;
        size_t out = probe * from.count + mirrored_window(k, mirror, from.mirror_columns);
        least[out] = best;
        if (from.sum != nullptr) {
            scale[out] = (float)(1.0 / total);
        }
    }
    return best;
}

// Merges posteriors of float32, and marks the queries that have to be computed in float64.
extern "C" __global__ void NAMED(merge_shards)(Probes probes, const float* shard_least, const float* shard_sum,
                                               int first_shard, int shards, int all_shards, int count,
                                               int mirror_columns, float* least, float* scale) {
    int k = blockIdx.x * blockDim.x + threadIdx.x, query = blockIdx.y;
    if (k >= count || is_left_out(probes, query)) {
        return;
    }
    ShardPosteriors<float> from{shard_least, shard_sum, first_shard, shards, all_shards, count, mirror_columns};
    float best = merge(probes, from, query, k, least, scale);
    if (shard_sum != nullptr && !float_serves(probes, query, best)) {
        atomicOr(&probes.marks[query], IN_DOUBLE);
    }
}

// Merges posteriors of float64.
extern "C" __global__ void NAMED(merge_double_shards)(Probes probes, const double* shard_least, const float* shard_sum,
                                                      int first_shard, int shards, int all_shards, int count,
                                                      int mirror_columns, double* least, float* scale) {
    int k = blockIdx.x * blockDim.x + threadIdx.x, query = blockIdx.y;
    if (k >= count || is_weighed(probes, query) || !is_in_double(probes, query)) {
        return;
    }
    ShardPosteriors<double> from{shard_least, shard_sum, first_shard, shards, all_shards, count, mirror_columns};
    merge(probes, from, query, k, least, scale);
}

// Sums over shards and mirror images, divided by the cover, in the units of the images, to the given rows of `out`; NaN
// for invalid queries. Queries whose candidates were weighed have their sums in fixed point, in units of `max_abs`.
extern "C" __global__ void NAMED(finish_queries)(Probes probes, const float* shard_sums,
                                                 const long long* candidate_sums, double max_abs,
                                                 const unsigned* cover, int shards, int image_len, int plane, int width,
                                                 PixelUnits units, const int* rows, void* out, int out_is_f64) {
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
    if (probes.marks[query] & INVALID) {
        value = __longlong_as_double(0x7ff8000000000000ll);
    }
    size_t to = (size_t)rows[query] * image_len + p;
    if (out_is_f64) {
        ((double*)out)[to] = value;
    } else {
        ((float*)out)[to] = (float)value;
    }
}
