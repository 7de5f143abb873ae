// The full window: one energy per probe and image, few enough to keep, so that pass 2 is a weighted mean.
//
// CPU counterpart: the room `full` in src/cpu.

// Probes that share the pixels of an image: their sums stay in registers.
#define PROBE_PANEL 8

// Images whose weights lie in shared memory at a time.
#define STAGED_IMAGES 64

// Threads of a block of full_weights.
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
            if (lane == i && first_probe + q <= last_probe && 4 * group + i < images.count) {
                energies[(size_t)(first_probe + q) * all_images + images.first + 4 * group + i] = energy.of[i];
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

// Turns the energies of a query's probes into weights that sum to one, in place; lists candidates first, where they are
// looked for. A block per query.
extern "C" __global__ void NAMED(full_weights)(Probes probes, float* energies, int all_images, CandidateLists lists) {
    __shared__ float least[WEIGHT_THREADS];
    __shared__ double sum[WEIGHT_THREADS];
    int query = blockIdx.x, t = threadIdx.x, threads = blockDim.x;
    float best = MAX_FLOAT;
    for (int mirror = 0; mirror < probes.mirrors; mirror++) {
        const float* row = energies + ((size_t)mirror * probes.queries + query) * all_images;
        for (int i = t; i < all_images; i += threads) {
            best = fminf(best, row[i]);
        }
    }
    least[t] = best;
    for (int half = threads / 2; half > 0; half /= 2) {
        __syncthreads();
        if (t < half) {
            least[t] = fminf(least[t], least[t + half]);
        }
    }
    __syncthreads();
    best = least[0];
    float logit_scale = (float)probes.logit_scales[query];
    if (lists.counts != nullptr) {
        float bound = candidate_bound(best, (float)(probes.cutoff_bits / probes.logit_scales[query]));
        for (int mirror = 0; mirror < probes.mirrors; mirror++) {
            int probe = mirror * probes.queries + query;
            for (int i = t; i < all_images; i += threads) {
                F32x4 energy = splat(MAX_FLOAT);
                energy.of[0] = energies[(size_t)probe * all_images + i];
                list_candidates(lists, probes, probe, 0, i, energy, bound);
            }
        }
    }
    double total = 0.0;
    for (int mirror = 0; mirror < probes.mirrors; mirror++) {
        const float* row = energies + ((size_t)mirror * probes.queries + query) * all_images;
        for (int i = t; i < all_images; i += threads) {
            total += exp2_approx((best - row[i]) * logit_scale);
        }
    }
    sum[t] = total;
    for (int half = threads / 2; half > 0; half /= 2) {
        __syncthreads();
        if (t < half) {
            sum[t] += sum[t + half];
        }
    }
    __syncthreads();
    float scale = (float)(1.0 / sum[0]);
    for (int mirror = 0; mirror < probes.mirrors; mirror++) {
        float* row = energies + ((size_t)mirror * probes.queries + query) * all_images;
        for (int i = t; i < all_images; i += threads) {
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
    float sum[PROBE_PANEL];
#pragma unroll
    for (int q = 0; q < PROBE_PANEL; q++) {
        sum[q] = 0.0f;
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
            for (int g = 0; g < groups; g++) {
                F32x4 a = centred(pixels[(size_t)g * image_len]);
#pragma unroll
                for (int q = 0; q < PROBE_PANEL; q++) {
                    const float* w = &staged[q][4 * g];
                    sum[q] = fmaf(w[0], a.of[0], fmaf(w[1], a.of[1], fmaf(w[2], a.of[2], fmaf(w[3], a.of[3], sum[q]))));
                }
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
                shard_sums[row * image_len + p] = sum[q];
            }
        }
    }
}
