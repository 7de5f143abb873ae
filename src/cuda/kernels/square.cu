// Square windows. A warp owns a probe and walks over the images of a shard, four at once; lanes are columns, rows stream by
// from the top. Sums of `side` rows are kept per column, sums of `side` columns are taken across lanes, and nothing is ever
// subtracted (src/cpu/slide.rs). No warp waits for another.
//
// CPU counterparts: src/cpu/energy.rs, weigh.rs, candidates.rs, spread.rs, gather.rs.

struct Square {
    int side;
    int rows;     // rows of windows
    int columns;  // windows a row
};

// A warp's working space.
struct SquareSpace {
    Four* slabs;
    u64 slab;     // Fours a warp has of them
    int warp;     // Fours a warp has of shared memory
    Place ring;   // [side + 1][width]: rows of a sliding sum and the sum of its current block
    Place ring2;  // the same for the weights of pass 2
    Place rows;   // [3][width], for images wider than a warp
    Place state;  // pass 1: three floats a window; pass 2: the weighted sum of pixels
};

// Up to this side the values of a sliding sum are simply added.
#define SHORT_SIDE 4

// Sums of the last `side` rows of one column, as rows arrive from the top. Every lane has its own columns.
struct Down {
    Four* ring;
    Four* head;
    int side;
    int width;
    int seen;
    int slot;

    __device__ Down(Four* place, int side, int width)
        : ring(place), head(place + side * width), side(side), width(width), seen(0), slot(0) {}

    __device__ void restart() {
        seen = 0;
        slot = 0;
    }

    // Takes the next value of column x and returns the sum of the last `side`, or of as many as there are.
    __device__ Four push(int x, Four value) {
        ring[slot * width + x] = value;
        if (side <= SHORT_SIDE) {
            Four sum = value;
            for (int back = 1; back < side && back <= seen; back++) {
                int other = slot - back;
                sum = ring[(other < 0 ? other + side : other) * width + x] + sum;
            }
            return sum;
        }
        // Block method: the window is the end of one block and the start of the next.
        Four sum = slot == 0 ? value : head[x] + value;
        head[x] = sum;
        if (slot + 1 < side) {
            return seen < side ? sum : ring[(slot + 1) * width + x] + sum;
        }
        Four tail = value;
#pragma unroll 1
        for (int row = side - 2; row >= 0; row--) {
            tail = tail + ring[row * width + x];
            ring[row * width + x] = tail;
        }
        return sum;
    }

    // After every column of a row.
    __device__ void next() {
        seen++;
        slot = slot + 1 == side ? 0 : slot + 1;
    }
};

// Sums of `side` neighbouring columns of one row: to the right of every column (STEP 1) or to its left (STEP -1), by
// doubling. A row no wider than a warp stays in registers.
template <int STEP>
struct Across {
    Four* row;
    Four* other;
    Four* total;
    Four kept;
    int side;
    int width;

    __device__ Across(Four* place, int side, int width)
        : row(place), other(place + width), total(place + 2 * width), kept(four(0.0f)), side(side), width(width) {}

    // Columns beyond the data have to be zero.
    __device__ void put(int x, Four value) {
        if (NARROW) {
            kept = value;
        } else {
            row[x] = value;
        }
    }

    // After `put` of every column, before `get`.
    __device__ void sum(int lane) {
        if (NARROW) {
            Four all = four(0.0f);
            int offset = 0;
#pragma unroll 1
            for (int bit = 1; bit <= side; bit <<= 1) {
                if (side & bit) {
                    all = all + shifted(kept, offset, lane);
                    offset += bit;
                }
                if (2 * bit <= side) {
                    kept = kept + shifted(kept, bit, lane);
                }
            }
            kept = all;
            return;
        }
        __syncwarp();
        int offset = 0;
#pragma unroll 1
        for (int bit = 1; bit <= side; bit <<= 1) {
            bool first = offset == 0;
            if (side & bit) {
#pragma unroll 1
                for (int x = lane; x < width; x += LANES) {
                    Four part = read(row, x + STEP * offset);
                    total[x] = first ? part : total[x] + part;
                }
                offset += bit;
            }
            if (2 * bit <= side) {
#pragma unroll 1
                for (int x = lane; x < width; x += LANES) {
                    other[x] = row[x] + read(row, x + STEP * bit);
                }
                __syncwarp();
                Four* swap = row;
                row = other;
                other = swap;
            }
        }
        // The row may be written to again only when every lane has read it.
        __syncwarp();
    }

    __device__ Four get(int x) const {
        return NARROW ? kept : total[x];
    }

    __device__ Four read(const Four* from, int x) const {
        return x >= 0 && x < width ? from[x] : four(0.0f);
    }

    __device__ Four shifted(Four value, int offset, int lane) const {
        Four out;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float there = STEP > 0 ? __shfl_down_sync(EVERY_LANE, value.of[i], offset)
                                   : __shfl_up_sync(EVERY_LANE, value.of[i], offset);
            bool inside = STEP > 0 ? lane + offset < LANES : lane >= offset;
            out.of[i] = inside ? there : 0.0f;
        }
        return out;
    }
};

// Which warp this is and what it works on.
struct Warp {
    int lane;
    int probe;
    int query;
    int shard;    // within the tile
    int start;    // images of the tile
    int end;
    Four* shared;
    Four* slab;

    __device__ Warp(const Images& images, const Probes& probes, const SquareSpace& space, Four* workspace) {
        int warps = blockDim.x / LANES, index = threadIdx.x / LANES;
        lane = threadIdx.x % LANES;
        probe = blockIdx.x * warps + index;
        query = probe % probes.queries;
        shard = blockIdx.y;
        start = shard * images.shard;
        end = min(images.count, start + images.shard);
        shared = workspace + index * space.warp;
        slab = space.slabs + ((u64)blockIdx.y * gridDim.x * warps + blockIdx.x * warps + index) * space.slab;
    }

    __device__ Four* at(Place place) const {
        return (place.shared ? shared : slab) + place.at;
    }

    // Where its results belong: [probe][shard].
    __device__ size_t row(const Images& images) const {
        return (size_t)probe * images.shards + images.first_shard + shard;
    }
};

// Walks over the images of the warp's shard and hands every row of energies to `sink`:
// `begin(first, fours)` before a group, `row(y, across)` for row y of windows, `end()` after the group.
template <bool EXPANDED, typename Sink>
__device__ void walk(const Images& images, const Probes& probes, const Square& square, const Warp& warp,
                     const SquareSpace& space, Sink& sink) {
    int height = images.height, width = images.width, plane = height * width;
    size_t image_len = (size_t)images.channels * plane;
    const float* z = probes.values + warp.probe * image_len;
    Down down(warp.at(space.ring), square.side, width);
    Across<1> across(warp.at(space.rows), square.side, width);
    int padded = NARROW ? LANES : width;
    for (int first = warp.start; first < warp.end; first += 4) {
        const Fours* fours = (const Fours*)images.pixels + first / 4 * image_len;
        sink.begin(first, fours);
        down.restart();
        for (int y = 0; y < height; y++) {
            bool complete = y + 1 >= square.side;
#pragma unroll 1
            for (int x = warp.lane; x < padded; x += LANES) {
                Four sum = four(0.0f);
                if (x < width) {
                    Four error = errors<EXPANDED>(fours, z, images.channels, plane, y * width + x);
                    sum = down.push(x, error);
                }
                if (complete) {
                    across.put(x, sum);
                }
            }
            down.next();
            if (complete) {
                across.sum(warp.lane);
                sink.row(y + 1 - square.side, across);
            }
        }
        sink.end();
    }
}

// Pass 1: the posterior of every window over the shard.
struct Posteriors {
    const Warp& warp;
    State state;
    int columns;
    int count;
    float rate;
    float margin;
    int valid;

    __device__ void begin(int first, const Fours*) {
        valid = min(4, count - first);
    }

    template <typename Row>
    __device__ void row(int y, const Row& sums) {
        bool near = false;
#pragma unroll 1
        for (int x = warp.lane; x < columns; x += LANES) {
            near |= least_of(only_images(sums.get(x), valid)) < state.least[y * columns + x] + margin;
        }
        if (!__any_sync(EVERY_LANE, near)) {
            return;
        }
#pragma unroll 1
        for (int x = warp.lane; x < columns; x += LANES) {
            state.absorb(y * columns + x, only_images(sums.get(x), valid), rate);
        }
    }

    __device__ void end() {}
};

// Small sigma: the least energy of every window, and the images near it.
struct Scan {
    const Warp& warp;
    float* least;
    Candidates list;
    Probes probes;
    int columns;
    int count;
    float margin;
    int tile;
    int valid;
    int group;

    __device__ void begin(int first, const Fours*) {
        group = tile + first;
        valid = min(4, count - first);
    }

    template <typename Row>
    __device__ void row(int y, const Row& sums) {
#pragma unroll 1
        for (int x = warp.lane; x < columns; x += LANES) {
            int k = y * columns + x;
            Four energies = only_images(sums.get(x), valid);
            float best = fminf(least[k], least_of(energies));
            least[k] = best;
            float bound = candidate_bound(best, margin);
            if (list.counts != nullptr && least_of(energies) < bound) {
                list_candidates(list, probes, warp.probe, k, group, energies, bound);
            }
        }
    }

    __device__ void end() {}
};

// Pass 2: weights, spread to pixels and gathered into the weighted sum of the shard's images.
struct Composite {
    const Warp& warp;
    Images images;
    Square square;
    Down down;
    Across<-1> across;
    float* sums;
    const float* least;
    const float* scale;
    float rate;
    float margin;
    const Fours* fours;
    int valid;
    int dead;

    __device__ void begin(int first, const Fours* group) {
        fours = group;
        valid = min(4, images.count - first);
        dead = square.side;
        down.restart();
    }

    template <typename Row>
    __device__ void row(int y, const Row& energies) {
        bool near = false;
#pragma unroll 1
        for (int x = warp.lane; x < square.columns; x += LANES) {
            near |= least_of(only_images(energies.get(x), valid)) < least[y * square.columns + x] + margin;
        }
        if (!__any_sync(EVERY_LANE, near)) {
            pass(y, false);
            return;
        }
        dead = 0;
        int padded = NARROW ? LANES : images.width;
#pragma unroll 1
        for (int x = warp.lane; x < padded; x += LANES) {
            Four weight = four(0.0f);
            if (x < square.columns) {
                int k = y * square.columns + x;
                weight = weights(only_images(energies.get(x), valid), least[k], scale[k], rate);
            }
            across.put(x, weight);
        }
        across.sum(warp.lane);
        pass(y, true);
    }

    // The row of pixels whose last windows are those of row y.
    __device__ void pass(int y, bool live) {
        if (!live && ++dead >= square.side) {
            // No window that holds this row carries weight: the sums start over.
            down.restart();
            return;
        }
        int plane = images.height * images.width;
#pragma unroll 1
        for (int x = warp.lane; x < images.width; x += LANES) {
            Four coefficients = down.push(x, live ? across.get(x) : four(0.0f));
            int pixel = y * images.width + x;
            for (int c = 0; c < images.channels; c++) {
                sums[c * plane + pixel] += weighted(coefficients, centred(fours[c * plane + pixel]));
            }
        }
        down.next();
    }

    __device__ void end() {
        for (int y = square.rows; y < images.height; y++) {
            pass(y, false);
        }
    }
};

template <typename Sink>
__device__ void walk_in_form(const Images& images, const Probes& probes, const Square& square, const Warp& warp,
                             const SquareSpace& space, Sink& sink) {
    if (probes.expanded) {
        walk<true>(images, probes, square, warp, space, sink);
    } else {
        walk<false>(images, probes, square, warp, space, sink);
    }
}

// To [probe][shard][window]: the least energy and the sum of weights relative to it.
extern "C" __global__ void NAMED(square_posteriors)(Images images, Probes probes, Square square, SquareSpace space,
                                                    float* least, float* sum) {
    DYNAMIC_SHARED(Four, workspace);
    Warp warp(images, probes, space, workspace);
    if (warp.probe >= probes.queries * probes.views || listed(probes, warp.query)) {
        return;
    }
    int count = square.rows * square.columns;
    float rate = (float)probes.rates[warp.query];
    State state(warp.at(space.state), count);
#pragma unroll 1
    for (int k = warp.lane; k < count; k += LANES) {
        state.start(k);
    }
    __syncwarp();
    Posteriors sink{warp, state, square.columns, images.count, rate, INVISIBLE / rate, 0};
    walk_in_form(images, probes, square, warp, space, sink);
    __syncwarp();
    size_t out = warp.row(images) * count;
#pragma unroll 1
    for (int k = warp.lane; k < count; k += LANES) {
        least[out + k] = state.least[k];
        sum[out + k] = state.sum[k] + state.rest[k];
    }
}

// To [probe][shard][window]: the least energy, starting from `hint` [probe][window] where there is one; and to `list` the
// images near it, where there is a list.
extern "C" __global__ void NAMED(square_scan)(Images images, Probes probes, Square square, SquareSpace space,
                                              const float* hint, float* least, Candidates list) {
    DYNAMIC_SHARED(Four, workspace);
    Warp warp(images, probes, space, workspace);
    if (warp.probe >= probes.queries * probes.views) {
        return;
    }
    int count = square.rows * square.columns;
    float* best = (float*)warp.at(space.state);
#pragma unroll 1
    for (int k = warp.lane; k < count; k += LANES) {
        best[k] = hint == nullptr ? LARGEST : hint[(size_t)warp.probe * count + k];
    }
    __syncwarp();
    float margin = (float)(probes.cutoff / probes.rates[warp.query]);
    Scan sink{warp, best, list, probes, square.columns, images.count, margin, images.first, 0, 0};
    walk_in_form(images, probes, square, warp, space, sink);
    __syncwarp();
    size_t out = warp.row(images) * count;
#pragma unroll 1
    for (int k = warp.lane; k < count && least != nullptr; k += LANES) {
        least[out + k] = best[k];
    }
}

// To [probe][shard][channel][pixel]: the weighted sum of the shard's centred pixels.
extern "C" __global__ void NAMED(square_composites)(Images images, Probes probes, Square square, SquareSpace space,
                                                    Normaliser normaliser, float* partial) {
    DYNAMIC_SHARED(Four, workspace);
    Warp warp(images, probes, space, workspace);
    if (warp.probe >= probes.queries * probes.views || listed(probes, warp.query)) {
        return;
    }
    int image_len = images.channels * images.height * images.width;
    float rate = (float)probes.rates[warp.query];
    float* sums = (float*)warp.at(space.state);
#pragma unroll 1
    for (int i = warp.lane; i < image_len; i += LANES) {
        sums[i] = 0.0f;
    }
    __syncwarp();
    size_t windows = (size_t)warp.probe * square.rows * square.columns;
    Composite sink{
        warp,
        images,
        square,
        Down(warp.at(space.ring2), square.side, images.width),
        Across<-1>(warp.at(space.rows), square.side, images.width),
        sums,
        normaliser.least + windows,
        normaliser.scale + windows,
        rate,
        probes.cutoff / rate,
        nullptr,
        0,
        0,
    };
    walk_in_form(images, probes, square, warp, space, sink);
    __syncwarp();
    size_t out = warp.row(images) * image_len;
#pragma unroll 1
    for (int i = warp.lane; i < image_len; i += LANES) {
        partial[out + i] = sums[i];
    }
}
