// Square windows: the walk over energies, pass 1 and pass 2. A warp owns a probe and walks over the images of a shard,
// four at once; lanes are columns, and rows arrive from the top. No warp waits for another.
//
// CPU counterpart: the room `dense` in src/cpu.

struct SquareWindows {
    int side;
    int rows;     // rows of windows
    int columns;  // windows per row
};

// A warp's workspace. Lengths are in F32x4.
struct SquareWorkspace {
    F32x4* slabs;
    u64 slab_len;        // of a warp
    int shared_len;      // of a warp
    Offset energy_ring;  // [side + 1][width]: ColumnSums of the residuals
    Offset weight_ring;  // the same for the weights of pass 2
    Offset row_buffers;  // [3][width]: RowSums of images wider than a warp
    Offset state;        // pass 1: the softmax of every window; scan: its bounds; pass 2: the weighted sum of pixels
};

// Which warp this is and what it works on.
struct Warp {
    int lane;
    int probe;
    int query;
    int shard;  // within the step
    int start;  // images of the shard, within the step
    int end;
    F32x4* shared;
    F32x4* slab;

    __device__ Warp(const Images& images, const Probes& probes, const SquareWorkspace& workspace, F32x4* block_shared) {
        int warps = blockDim.x / LANES, index = threadIdx.x / LANES;
        lane = threadIdx.x % LANES;
        probe = blockIdx.x * warps + index;
        query = probe % probes.queries;
        shard = blockIdx.y;
        start = shard * images.shard_len;
        end = min(images.count, start + images.shard_len);
        shared = block_shared + index * workspace.shared_len;
        slab = workspace.slabs +
               ((u64)blockIdx.y * gridDim.x * warps + blockIdx.x * warps + index) * workspace.slab_len;
    }

    __device__ F32x4* at(Offset offset) const {
        return (offset.shared ? shared : slab) + offset.at;
    }

    // The row of its results: [probe][shard].
    __device__ size_t result_row(const Images& images) const {
        return (size_t)probe * images.shards + images.first_shard + shard;
    }
};

// Walks over the images of the warp's shard and hands every row of energies to `sink`: `begin(first, pixels)` before a
// group, `row(y, energies)` for row y of windows, `end()` after the group.
template <bool EXPANDED, typename Sink>
__device__ void for_each_row_of_windows(const Images& images, const Probes& probes, const SquareWindows& square,
                                        const Warp& warp, const SquareWorkspace& workspace, Sink& sink) {
    int height = images.height, width = images.width, plane = height * width;
    size_t image_len = (size_t)images.channels * plane;
    ProbeZ<REAL> z(probes, warp.probe * image_len);
    ColumnSums<REAL> column_sums(warp.at(workspace.energy_ring), square.side, width);
    RowSums<REAL, 1> row_sums(warp.at(workspace.row_buffers), square.side, width);
    int padded = NARROW ? LANES : width;
    for (int first = warp.start; first < warp.end; first += 4) {
        const PixelX4* pixels = (const PixelX4*)images.pixels + first / 4 * image_len;
        sink.begin(first, pixels);
        column_sums.restart();
        for (int y = 0; y < height; y++) {
            bool complete = y + 1 >= square.side;
#pragma unroll 1
            for (int x = warp.lane; x < padded; x += LANES) {
                RealX4 sum = splat((REAL)0);
                if (x < width) {
                    RealX4 residual =
                        squared_residuals<EXPANDED>(pixels, z, images.channels, plane, y * width + x);
                    sum = column_sums.push(x, residual);
                }
                if (complete) {
                    row_sums.put(x, sum);
                }
            }
            column_sums.next_row();
            if (complete) {
                row_sums.sum(warp.lane);
                sink.row(y + 1 - square.side, row_sums);
            }
        }
        sink.end();
    }
}

template <typename Sink>
__device__ void for_each_row_in_form(const Images& images, const Probes& probes, const SquareWindows& square,
                                     const Warp& warp, const SquareWorkspace& workspace, Sink& sink) {
    if (probes.expanded && !IS_DOUBLE) {
        for_each_row_of_windows<true>(images, probes, square, warp, workspace, sink);
    } else {
        for_each_row_of_windows<false>(images, probes, square, warp, workspace, sink);
    }
}

// Pass 1: the posterior of every window over the shard.
struct PosteriorSink {
    const Warp& warp;
    const Images& images;
    const Probes& probes;
    OnlineSoftmax<REAL> softmax;
    int columns;
    REAL logit_scale;
    REAL margin;
    Penalties<REAL> penalties;

    __device__ void begin(int first, const PixelX4*) {
        penalties = Penalties<REAL>(images, probes, warp.query, first);
    }

    template <typename Row>
    __device__ void row(int y, const Row& energies) {
        bool near = false;
#pragma unroll 1
        for (int x = warp.lane; x < columns; x += LANES) {
            near |= is_near(penalties.on(energies.get(x)), softmax.least[y * columns + x], margin);
        }
        if (!__any_sync(FULL_WARP, near)) {
            return;
        }
#pragma unroll 1
        for (int x = warp.lane; x < columns; x += LANES) {
            softmax.update(y * columns + x, penalties.on(energies.get(x)), logit_scale);
        }
    }

    __device__ void end() {}
};

// Pass 2: normalised weights, their adjoint box sums, and with these the weighted sum of the shard's images.
struct CompositeSink {
    const Warp& warp;
    const Images& images;
    const Probes& probes;
    SquareWindows square;
    ColumnSums<float> column_sums;
    RowSums<float, -1> row_sums;
    float* pixel_sums;
    float* total;
    const REAL* least;
    const float* scale;
    REAL logit_scale;
    REAL margin;
    const PixelX4* pixels;
    Penalties<REAL> penalties;
    int inactive_rows;
    int groups;  // summed since the sums were last added to the total

    __device__ void begin(int first, const PixelX4* group) {
        pixels = group;
        penalties = Penalties<REAL>(images, probes, warp.query, first);
        inactive_rows = square.side;
        column_sums.restart();
    }

    template <typename Row>
    __device__ void row(int y, const Row& energies) {
        bool near = false;
#pragma unroll 1
        for (int x = warp.lane; x < square.columns; x += LANES) {
            near |= is_near(penalties.on(energies.get(x)), least[y * square.columns + x], margin);
        }
        if (!__any_sync(FULL_WARP, near)) {
            box_adjoint(y, false);
            return;
        }
        inactive_rows = 0;
        int padded = NARROW ? LANES : images.width;
#pragma unroll 1
        for (int x = warp.lane; x < padded; x += LANES) {
            F32x4 weight = splat(0.0f);
            if (x < square.columns) {
                int k = y * square.columns + x;
                weight = weights(penalties.on(energies.get(x)), least[k], scale[k], logit_scale);
            }
            row_sums.put(x, weight);
        }
        row_sums.sum(warp.lane);
        box_adjoint(y, true);
        if (!NARROW) {
            // The next row of energies may take the place of these sums, in elements of another size.
            __syncwarp();
        }
    }

    // Sums the weights of the windows that hold row y of pixels, the last of which are those of row y, and accumulates
    // the pixels. An inactive row of windows carries no weight.
    __device__ void box_adjoint(int y, bool active) {
        if (!active && ++inactive_rows >= square.side) {
            // No window that holds this row carries weight: the sums start over.
            column_sums.restart();
            return;
        }
        int plane = images.height * images.width;
#pragma unroll 1
        for (int x = warp.lane; x < images.width; x += LANES) {
            F32x4 coefficients = column_sums.push(x, active ? row_sums.get(x) : splat(0.0f));
            int pixel = y * images.width + x;
            for (int c = 0; c < images.channels; c++) {
                pixel_sums[c * plane + pixel] += weighted(coefficients, centred(pixels[c * plane + pixel]));
            }
        }
        column_sums.next_row();
    }

    __device__ void end() {
        for (int y = square.rows; y < images.height; y++) {
            box_adjoint(y, false);
        }
        if (++groups == GROUPS_PER_SUM) {
            add_to_total();
        }
    }

    // Adds the sums to the total and starts them over.
    __device__ void add_to_total() {
        int image_len = images.channels * images.height * images.width;
        __syncwarp();
#pragma unroll 1
        for (int i = warp.lane; i < image_len; i += LANES) {
            total[i] += pixel_sums[i];
            pixel_sums[i] = 0.0f;
        }
        __syncwarp();
        groups = 0;
    }
};

// To [probe][shard][window]: the least energy and the sum of weights relative to it.
extern "C" __global__ void NAMED(square_posteriors)(Images images, Probes probes, SquareWindows square,
                                                    SquareWorkspace workspace, REAL* least, float* sum) {
    DYNAMIC_SHARED(F32x4, block_shared);
    Warp warp(images, probes, workspace, block_shared);
    if (warp.probe >= probes.queries * probes.mirrors || is_left_out(probes, warp.query)) {
        return;
    }
    int count = square.rows * square.columns;
    REAL logit_scale = (REAL)probes.logit_scales[warp.query];
    OnlineSoftmax<REAL> softmax(warp.at(workspace.state), count);
#pragma unroll 1
    for (int k = warp.lane; k < count; k += LANES) {
        softmax.start(k);
    }
    __syncwarp();
    REAL margin = negligible_bits(images) / logit_scale;
    PosteriorSink sink{warp, images, probes, softmax, square.columns, logit_scale, margin, Penalties<REAL>()};
    for_each_row_in_form(images, probes, square, warp, workspace, sink);
    __syncwarp();
    size_t out = warp.result_row(images) * count;
#pragma unroll 1
    for (int k = warp.lane; k < count; k += LANES) {
        least[out + k] = softmax.least[k];
        sum[out + k] = softmax.sum[k] + softmax.rest[k];
    }
}

// To [probe][shard][channel][pixel]: the weighted sum of the shard's centred pixels.
extern "C" __global__ void NAMED(square_composites)(Images images, Probes probes, SquareWindows square,
                                                    SquareWorkspace workspace, Normaliser normaliser,
                                                    float* shard_sums) {
    DYNAMIC_SHARED(F32x4, block_shared);
    Warp warp(images, probes, workspace, block_shared);
    if (warp.probe >= probes.queries * probes.mirrors || is_left_out(probes, warp.query)) {
        return;
    }
    int image_len = images.channels * images.height * images.width;
    REAL logit_scale = (REAL)probes.logit_scales[warp.query];
    float* pixel_sums = (float*)warp.at(workspace.state);
    float* total = shard_sums + warp.result_row(images) * image_len;
#pragma unroll 1
    for (int i = warp.lane; i < image_len; i += LANES) {
        pixel_sums[i] = 0.0f;
        total[i] = 0.0f;
    }
    __syncwarp();
    size_t windows = (size_t)warp.probe * square.rows * square.columns;
    CompositeSink sink{
        warp,
        images,
        probes,
        square,
        ColumnSums<float>(warp.at(workspace.weight_ring), square.side, images.width),
        RowSums<float, -1>(warp.at(workspace.row_buffers), square.side, images.width),
        pixel_sums,
        total,
        normaliser.least + windows,
        normaliser.scale + windows,
        logit_scale,
        probes.cutoff_bits / logit_scale,
        nullptr,
        Penalties<REAL>(),
        0,
        0,
    };
    for_each_row_in_form(images, probes, square, warp, workspace, sink);
    sink.add_to_total();
}
