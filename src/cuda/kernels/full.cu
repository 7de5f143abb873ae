// The full window: one energy per probe and image, few enough to keep, so that pass 2 is a weighted mean.
//
// CPU counterpart: the room `full` in src/cpu.

// Probes that share the pixels of an image: their sums stay in registers.
#define PROBE_PANEL 8

// Images whose weights lie in shared memory at a time.
#define STAGED_IMAGES 64

// Threads of a block of full_bests and full_weights.
#define WEIGHT_THREADS 256

// Pixels per lane that are summed before their sum is added to the total, so that rounding does not grow with the
// image.
#define PIXELS_PER_SUM 64

// Energies [probe][image] of a group of images and up to PROBE_PANEL probes, by one warp: lanes are pixels.
template <bool EXPANDED>
__device__ void energies_of_group(const Images& images, const Probes& probes, int group, int first_probe,
                                  float* energies, int all_images) {
    int lane = threadIdx.x % LANES;
    int image_len = images.channels * images.height * images.width;
    int last_probe = probes.queries * probes.mirrors - 1;
    const PixelX4* pixels = (const PixelX4*)images.pixels + (size_t)group * image_len;
    F32x4 total[PROBE_PANEL], own_total = splat(0.0f);
#pragma unroll
    for (int q = 0; q < PROBE_PANEL; q++) {
        total[q] = splat(0.0f);
    }
    for (int start = lane; start < image_len; start += PIXELS_PER_SUM * LANES) {
        F32x4 sum[PROBE_PANEL], own = splat(0.0f);
#pragma unroll
        for (int q = 0; q < PROBE_PANEL; q++) {
            sum[q] = splat(0.0f);
        }
        int end = min(image_len, start + PIXELS_PER_SUM * LANES);
        for (int p = start; p < end; p += LANES) {
            F32x4 a = centred(pixels[p]);
            if (EXPANDED) {
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    own.of[i] = fmaf(a.of[i], a.of[i], own.of[i]);
                }
            }
#pragma unroll
            for (int q = 0; q < PROBE_PANEL; q++) {
                // Probes past the last one repeat it; their sums are dropped below.
                float z = probes.values[(size_t)min(first_probe + q, last_probe) * image_len + p];
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    float t = EXPANDED ? z : a.of[i] - z;
                    sum[q].of[i] = fmaf(EXPANDED ? a.of[i] : t, t, sum[q].of[i]);
                }
            }
        }
        own_total = own_total + own;
#pragma unroll
        for (int q = 0; q < PROBE_PANEL; q++) {
            total[q] = total[q] + sum[q];
        }
    }
#pragma unroll
    for (int q = 0; q < PROBE_PANEL; q++) {
        F32x4 energy = EXPANDED ? own_total + total[q] : total[q];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            for (int step = LANES / 2; step > 0; step /= 2) {
                energy.of[i] += __shfl_xor_sync(FULL_WARP, energy.of[i], step);
            }
        }
        int probe = min(first_probe + q, last_probe);
        energy = Penalties<float>(images, probes, probe % probes.queries, 4 * group).on(energy);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            if (lane == i && first_probe + q <= last_probe && 4 * group + i < images.count) {
                energies[(size_t)probe * all_images + images.first + 4 * group + i] = energy.of[i];
            }
        }
    }
}

extern "C" __global__ void NAMED(full_energies)(Images images, Probes probes, float* energies, int all_images) {
    int group = blockIdx.x * (blockDim.x / LANES) + threadIdx.x / LANES;
    if (4 * group >= images.count) {
        return;
    }
    int first_probe = blockIdx.y * PROBE_PANEL;
    if (probes.expanded) {
        energies_of_group<true>(images, probes, group, first_probe, energies, all_images);
    } else {
        energies_of_group<false>(images, probes, group, first_probe, energies, all_images);
    }
}

// The best image of a query by its energies in float32.
struct BestImage {
    unsigned at;  // mirror * images + image
    float bound;  // below which the energies of all images lie that carry weight
};

// Combines the values of a block's threads in shared memory; every thread gets the result.
template <typename Value, typename Combine>
__device__ Value over_block(Value* shared, Value mine, Combine combine) {
    int t = threadIdx.x;
    // The memory may still be read for the values before.
    __syncthreads();
    shared[t] = mine;
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        __syncthreads();
        if (t < half) {
            shared[t] = combine(shared[t], shared[t + half]);
        }
    }
    __syncthreads();
    return shared[0];
}

// An energy and whose it is; equal ones are in the order of the images.
struct EnergyAt {
    float energy;
    unsigned at;

    __device__ EnergyAt better(EnergyAt other) const {
        bool is_other = other.energy < energy || (other.energy == energy && other.at < at);
        return is_other ? other : *this;
    }
};

// Energies of images that carry weight are computed below this, by one block; z may be anywhere. The bound of the direct
// form holds near the data. Terms of the expanded form are at most reach (reach + 2 |z|), and round relative to that.
__device__ inline float full_bound(const Probes& probes, int query, int image_len, float reach, float least) {
    __shared__ double shared[WEIGHT_THREADS];
    const float* z = probes.values + (size_t)query * image_len;
    double size = 0.0, largest = 0.0;
    for (int p = threadIdx.x; p < image_len; p += blockDim.x) {
        size += (double)reach * (reach + fabsf(z[p]));
        largest = fmax(largest, (double)fabsf(z[p]));
    }
    size = over_block(shared, size, [](double a, double b) { return a + b; });
    largest = over_block(shared, largest, [](double a, double b) { return fmax(a, b); });
    float margin = (float)(probes.cutoff_bits / probes.logit_scales[query]);
    if (probes.expanded) {
        return least + (margin + 2.0f * probes.error_bound.slack * (float)size);
    }
    return largest > probes.far_from ? MAX_FLOAT : candidate_bound(least, margin, probes.error_bound);
}

// The least energy of a query and whose it is, by one block.
__device__ inline EnergyAt least_of_query(const Probes& probes, int query, const float* energies, int all_images) {
    __shared__ EnergyAt shared[WEIGHT_THREADS];
    EnergyAt best{MAX_FLOAT, 0xffffffffu};
    for (int mirror = 0; mirror < probes.mirrors; mirror++) {
        const float* row = energies + ((size_t)mirror * probes.queries + query) * all_images;
        for (int i = threadIdx.x; i < all_images; i += blockDim.x) {
            best = best.better(EnergyAt{row[i], (unsigned)mirror * all_images + i});
        }
    }
    return over_block(shared, best, [](EnergyAt a, EnergyAt b) { return a.better(b); });
}

// Finds the best image of a query, whether float32 serves for its energies, and lists candidates, where they are looked
// for. A block per query. `reach` is the largest magnitude of a centred pixel.
extern "C" __global__ void NAMED(full_bests)(Probes probes, const float* energies, int all_images, int image_len,
                                             float reach, CandidateLists lists, BestImage* bests) {
    int query = blockIdx.x;
    EnergyAt best = least_of_query(probes, query, energies, all_images);
    float bound = full_bound(probes, query, image_len, reach, best.energy);
    if (threadIdx.x == 0) {
        bests[query] = BestImage{best.at, bound};
        if (!float_serves(probes, query, best.energy)) {
            atomicOr(&probes.marks[query], IN_DOUBLE);
        }
    }
    for (int mirror = 0; mirror < probes.mirrors && lists.counts != nullptr; mirror++) {
        int probe = mirror * probes.queries + query;
        for (int i = threadIdx.x; i < all_images; i += blockDim.x) {
            F32x4 energy = splat(MAX_FLOAT);
            energy.of[0] = energies[(size_t)probe * all_images + i];
            list_candidates(lists, probes, probe, 0, i, energy, bound);
        }
    }
}

// Whether the energies of a query have to be computed again.
__device__ inline bool needs_refining(const Probes& probes, int query) {
    return is_in_double(probes, query) && !is_weighed(probes, query);
}

// The best image of a query by its refined energies, which are exact but for their rounding to float32. A block per query.
extern "C" __global__ void NAMED(full_refined_bests)(Probes probes, const float* energies, int all_images,
                                                     BestImage* bests) {
    int query = blockIdx.x;
    if (!needs_refining(probes, query)) {
        return;
    }
    EnergyAt best = least_of_query(probes, query, energies, all_images);
    float margin = (float)(probes.cutoff_bits / probes.logit_scales[query]);
    if (threadIdx.x == 0) {
        bests[query] = BestImage{best.at, best.energy + margin + (fabsf(best.energy) + margin) * 1e-6f};
    }
}

// To [probe][channel][pixel]: the centred pixels of the query's best image, as that probe sees it, if the image is among
// those of the step.
extern "C" __global__ void NAMED(full_references)(Images images, Probes probes, const BestImage* bests, int all_images,
                                                  float* references) {
    int query = blockIdx.y, p = blockIdx.x * blockDim.x + threadIdx.x;
    int image_len = images.channels * images.height * images.width;
    int best_mirror = bests[query].at >= (unsigned)all_images;
    int image = (int)(bests[query].at - (unsigned)best_mirror * all_images) - images.first;
    if (p >= image_len || image < 0 || image >= images.count || !needs_refining(probes, query)) {
        return;
    }
    const PIXEL* pixels = (const PIXEL*)images.pixels + image / 4 * (4 * (size_t)image_len) + image % 4;
    for (int mirror = 0; mirror < probes.mirrors; mirror++) {
        int at = mirror == best_mirror ? p : mirror_pixel(p, images.width);
        references[((size_t)mirror * probes.queries + query) * image_len + p] = centred(pixels[4 * (size_t)at]);
    }
}

// How much larger the energies of a group of images are than that of the reference b, by one warp in float64: the sum of
// (a - b) (a + b - 2 z). Every lane gets it.
__device__ inline F64x4 energies_above(const PixelX4* pixels, const float* reference, const double* z, int image_len) {
    F64x4 sum = splat(0.0);
    for (int p = threadIdx.x % LANES; p < image_len; p += LANES) {
        F32x4 a = centred(pixels[p]);
        double b = reference[p], twice_z = 2.0 * z[p];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            sum.of[i] = fma(a.of[i] - b, (a.of[i] + b) - twice_z, sum.of[i]);
        }
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
        for (int step = LANES / 2; step > 0; step /= 2) {
            sum.of[i] += __shfl_xor_sync(FULL_WARP, sum.of[i], step);
        }
    }
    return sum;
}

// How much larger the energy of an image is than that of the best for their priors.
__device__ inline double bias_above(const Probes& probes, int query, int image, int best) {
    return probes.below == nullptr ? 0.0 : bias_of<double>(probes, query, image) - bias_of<double>(probes, query, best);
}

// Where float32 does not serve, replaces the energies [probe][image] of images that may carry weight by what they are
// above that of the reference, and the others by the largest float, which those that do not count have already. A warp
// takes a group of images at a time.
extern "C" __global__ void NAMED(full_refine)(Images images, Probes probes, const BestImage* bests,
                                              const float* references, float* energies, int all_images) {
    int warps = blockDim.x / LANES, lane = threadIdx.x % LANES;
    int probe = blockIdx.y, query = probe % probes.queries;
    if (!needs_refining(probes, query)) {
        return;
    }
    size_t image_len = (size_t)images.channels * images.height * images.width, start = probe * image_len;
    int best = (int)(bests[query].at % (unsigned)all_images);
    for (int first = 4 * (blockIdx.x * warps + threadIdx.x / LANES); first < images.count; first += 4 * gridDim.x * warps) {
        float* row = energies + (size_t)probe * all_images + images.first + first;
        bool present = lane < 4 && first + lane < images.count;
        bool near = present && row[lane] <= bests[query].bound && row[lane] < MAX_FLOAT;
        F64x4 above = splat((double)MAX_FLOAT);
        if (__any_sync(FULL_WARP, near)) {
            const PixelX4* pixels = (const PixelX4*)images.pixels + first / 4 * image_len;
            above = energies_above(pixels, references + start, probes.exact + start, (int)image_len);
        }
#pragma unroll
        for (int i = 0; i < 4; i++) {
            if (present && lane == i) {
                row[i] = near ? (float)(above.of[i] + bias_above(probes, query, images.first + first + i, best)) : MAX_FLOAT;
            }
        }
    }
}

// Turns the energies of a query's probes into weights that sum to one, in place. A block per query.
extern "C" __global__ void NAMED(full_weights)(Probes probes, float* energies, int all_images) {
    __shared__ float least[WEIGHT_THREADS];
    __shared__ double sum[WEIGHT_THREADS];
    int query = blockIdx.x;
    if (is_weighed(probes, query)) {
        return;
    }
    float best = MAX_FLOAT, logit_scale = (float)probes.logit_scales[query];
    for (int mirror = 0; mirror < probes.mirrors; mirror++) {
        const float* row = energies + ((size_t)mirror * probes.queries + query) * all_images;
        for (int i = threadIdx.x; i < all_images; i += blockDim.x) {
            best = fminf(best, row[i]);
        }
    }
    best = over_block(least, best, [](float a, float b) { return fminf(a, b); });
    double total = 0.0;
    for (int mirror = 0; mirror < probes.mirrors; mirror++) {
        const float* row = energies + ((size_t)mirror * probes.queries + query) * all_images;
        for (int i = threadIdx.x; i < all_images; i += blockDim.x) {
            total += weight_ratio(best - row[i], logit_scale);
        }
    }
    total = over_block(sum, total, [](double a, double b) { return a + b; });
    float scale = (float)(1.0 / total);
    for (int mirror = 0; mirror < probes.mirrors; mirror++) {
        float* row = energies + ((size_t)mirror * probes.queries + query) * all_images;
        for (int i = threadIdx.x; i < all_images; i += blockDim.x) {
            float bits = (best - row[i]) * logit_scale;
            // Far below the cutoff a weight is zero, so that groups of such images are skipped.
            row[i] = bits < -probes.cutoff_bits - 40.0f ? 0.0f : exp2_approx(bits) * scale;
        }
    }
}

// Weighted sums of a shard's images for up to PROBE_PANEL probes, [probe][shard][pixel]. Threads are pixels.
extern "C" __global__ void NAMED(full_means)(Images images, Probes probes, const float* weights, int all_images,
                                             float* shard_sums) {
    __shared__ float staged[PROBE_PANEL][STAGED_IMAGES];
    int image_len = images.channels * images.height * images.width;
    int p = blockIdx.x * blockDim.x + threadIdx.x;
    int start = blockIdx.y * images.shard_len, end = min(images.count, start + images.shard_len);
    int first_probe = blockIdx.z * PROBE_PANEL, all_probes = probes.queries * probes.mirrors;
    float total[PROBE_PANEL];
#pragma unroll
    for (int q = 0; q < PROBE_PANEL; q++) {
        total[q] = 0.0f;
    }
    for (int first = start; first < end; first += STAGED_IMAGES) {
        int any_weight = 0;
        for (int i = threadIdx.x; i < PROBE_PANEL * STAGED_IMAGES; i += blockDim.x) {
            int probe = first_probe + i / STAGED_IMAGES, image = first + i % STAGED_IMAGES;
            bool needed = probe < all_probes && image < end && !is_weighed(probes, probe % probes.queries);
            float weight = needed ? weights[(size_t)probe * all_images + images.first + image] : 0.0f;
            staged[i / STAGED_IMAGES][i % STAGED_IMAGES] = weight;
            any_weight |= weight != 0.0f;
        }
        if (__syncthreads_or(any_weight) && p < image_len) {
            int groups = (min(end, first + STAGED_IMAGES) - first + 3) / 4;
            const PixelX4* pixels = (const PixelX4*)images.pixels + (size_t)(first / 4) * image_len + p;
            float sum[PROBE_PANEL];
#pragma unroll
            for (int q = 0; q < PROBE_PANEL; q++) {
                sum[q] = 0.0f;
            }
            for (int g = 0; g < groups; g++) {
                F32x4 a = centred(pixels[(size_t)g * image_len]);
#pragma unroll
                for (int q = 0; q < PROBE_PANEL; q++) {
                    const float* w = &staged[q][4 * g];
                    sum[q] = fmaf(w[0], a.of[0], fmaf(w[1], a.of[1], fmaf(w[2], a.of[2], fmaf(w[3], a.of[3], sum[q]))));
                }
            }
            // Sums of sums, so that rounding does not grow with the shard.
#pragma unroll
            for (int q = 0; q < PROBE_PANEL; q++) {
                total[q] += sum[q];
            }
        }
        // The weights are overwritten for the next images.
        __syncthreads();
    }
    if (p < image_len) {
#pragma unroll
        for (int q = 0; q < PROBE_PANEL; q++) {
            if (first_probe + q < all_probes) {
                size_t row = (size_t)(first_probe + q) * images.shards + images.first_shard + blockIdx.y;
                shard_sums[row * image_len + p] = total[q];
            }
        }
    }
}
