// Pass 1 over planes: the posterior of every window in float64, with its entropy.
//
// CPU counterpart: `evidence` in src/cpu.

// The softmax of every window, [probe][shard][window].
struct ShardEvidence {
    double* least;  // the least energy
    double* sum;    // of weights relative to it
    double* above;  // the weighted sum of what energies lie above it
};

// Takes in the energies [window] of a slice; a row of blocks is a shard.
extern "C" __global__ void NAMED(plane_evidence)(Images images, Probes probes, int windows, const F64x4* energies,
                                                 ShardEvidence evidence) {
    int k = thread_in_row(), query = blockIdx.z % probes.queries;
    if (k >= windows) {
        return;
    }
    ShardPart part(images, blockIdx.y);
    size_t at = ((size_t)blockIdx.z * images.shards + part.shard) * windows + k;
    double least = MAX_FLOAT, sum = 0.0, above = 0.0, logit_scale = probes.logit_scales[query];
    if (!part.is_first) {
        least = evidence.least[at];
        sum = evidence.sum[at];
        above = evidence.above[at];
    }
    const F64x4* of_group = energies + (size_t)blockIdx.z * groups_of(images) * windows + k;
    for (int group = part.begin; group < part.end; group++) {
        Penalties<double> penalties(images, probes, query, 4 * group);
        F64x4 energy = penalties.on(of_group[(size_t)group * windows]);
        double best = lesser(least, least_of(energy));
        if (best < least) {
            // The first image of all meets empty sums; every later one shrinks them.
            double share = exp2(logit_scale * (best - least));
            above = share * (above + sum * (least - best));
            sum *= share;
            least = best;
        }
#pragma unroll
        for (int i = 0; i < 4; i++) {
            double difference = energy.of[i] - best, weight = exp2(-logit_scale * difference);
            sum += weight;
            above = fma(weight, difference, above);
        }
    }
    evidence.least[at] = least;
    evidence.sum[at] = sum;
    evidence.above[at] = above;
}

// What all shards and mirror images say of every window together.
struct Evidence {
    double* least;      // [probe][window]: the least energy
    double* scale;      // [probe][window]: the reciprocal of the sum of weights relative to it
    double* log2_sums;  // [query][window]: the logarithm of the sum of weights
    double* entropies;  // [query][window]: in powers of two
};

// Merges the softmax of the probes of a query; a row of blocks is a query.
extern "C" __global__ void NAMED(merge_evidence)(Probes probes, ShardEvidence shards_evidence, int shards, int windows,
                                                 int mirror_columns, Evidence evidence) {
    int k = thread_in_row(), query = blockIdx.y;
    if (k >= windows) {
        return;
    }
    double logit_scale = probes.logit_scales[query], best = MAX_FLOAT, total = 0.0, above = 0.0;
    for_each_in_shards(probes, query, k, 0, shards, shards, windows, mirror_columns,
                       [&](size_t at) { best = lesser(best, shards_evidence.least[at]); });
    for_each_in_shards(probes, query, k, 0, shards, shards, windows, mirror_columns, [&](size_t at) {
        double difference = shards_evidence.least[at] - best, share = exp2(-logit_scale * difference);
        total += share * shards_evidence.sum[at];
        above += share * (shards_evidence.above[at] + shards_evidence.sum[at] * difference);
    });
    for (int mirror = 0; mirror < probes.mirrors; mirror++) {
        size_t probe = (size_t)mirror * probes.queries + query;
        size_t at = probe * windows + mirrored_window(k, mirror, mirror_columns);
        evidence.least[at] = best;
        evidence.scale[at] = 1.0 / total;
    }
    size_t at = (size_t)query * windows + k;
    evidence.log2_sums[at] = log2(total) - logit_scale * best;
    evidence.entropies[at] = log2(total) + logit_scale * above / total;
}
