// Masks as lists. A mask is a list of pieces, 2^level pixels of a row each, read from doubling tables: table 0 is a plane of
// residuals, and table `level` holds at every pixel the sum of the 2^level pixels from there on (src/runs.rs).

// The pieces of all masks, by level and mask; and the masks that have a piece at a pixel, by level and pixel.
struct Masks {
    const int* piece_starts;   // [levels][count + 1], into `pieces`
    const int* pieces;         // flat positions of first pixels
    const int* member_starts;  // [levels][plane + 1], into `members`
    const int* members;        // masks
    int levels;
    int count;
};

// The masks as queries see them and as flipped queries do.
struct MirroredMasks {
    Masks plain;
    Masks flipped;

    __device__ Masks of(int mirror) const {
        return mirror == 0 ? plain : flipped;
    }
};
