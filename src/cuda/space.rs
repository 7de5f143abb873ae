//! Working space of the kernels: what of it lies in shared memory, and how many warps share a block.

use super::arguments::Place;

/// Bytes of a `Four`.
const FOUR: usize = 16;

/// Shared memory that a block of square windows is filled up to with warps; then four blocks and more fit on an H100.
const BLOCK: usize = 56 << 10;

/// Most shared memory for a warp; what does not fit lies in device memory.
const WARP: usize = 40 << 10;

/// Most shared memory for a block of masks, so that two blocks fit on an H100.
const MASKS: usize = 110 << 10;

/// Most warps in a block.
pub(super) const WARPS: usize = 4;

/// Up to this side a sliding sum needs no place for the sum of its block.
const SHORT_SIDE: usize = 4;

/// Parts of a space, laid out one after the other in shared memory or in a slab of device memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Space<const N: usize> {
    pub(super) places: [Place; N],
    /// Fours of shared memory.
    pub(super) shared: usize,
    /// Fours of a slab.
    pub(super) slab: usize,
}

impl<const N: usize> Space<N> {
    /// Places parts of so many Fours, the first ones first in shared memory as long as `most` bytes suffice.
    fn new(parts: [usize; N], most: usize) -> Self {
        let (mut shared, mut slab) = (0, 0);
        let places = parts.map(|fours| {
            let fits = (shared + fours) * FOUR <= most;
            let used = if fits { &mut shared } else { &mut slab };
            let place = Place { at: *used as i32, shared: i32::from(fits) };
            *used += fours;
            place
        });
        Self { places, shared, slab }
    }

    /// Bytes of shared memory.
    pub(super) fn shared_bytes(&self) -> usize {
        self.shared * FOUR
    }

    /// Bytes of a slab.
    pub(super) fn slab_bytes(&self) -> usize {
        self.slab * FOUR
    }
}

/// A warp's space for square windows: ring, second ring, rows and state (see `SquareSpace` in `kernels/square.cu`).
pub(super) fn square(
    side: usize,
    width: usize,
    narrow: bool,
    second_ring: bool,
    state: usize,
    limit: usize,
) -> Space<4> {
    let ring = width * if side <= SHORT_SIDE { side } else { side + 1 };
    let rows = if narrow { 0 } else { 3 * width };
    let ring2 = if second_ring { ring } else { 0 };
    // Rows and rings are used most, and are the first to get a place.
    let space = Space::new([rows, ring, ring2, state.div_ceil(4)], WARP.min(limit));
    let [rows, ring, ring2, state] = space.places;
    Space { places: [ring, ring2, rows, state], ..space }
}

/// Warps a block, each with `warp` bytes of shared memory.
pub(super) fn warps(warp: usize, limit: usize) -> usize {
    (BLOCK.min(limit) / warp.max(1)).clamp(1, WARPS)
}

/// A block's space for masks: tables, windows and state (see `MaskSpace` in `kernels/masks.cu`).
pub(super) fn masks(plane: usize, count: usize, state: usize, limit: usize) -> Space<3> {
    Space::new([2 * plane, count, state.div_ceil(4)], MASKS.min(limit))
}

/// Threads of a block of masks.
pub(super) fn mask_threads(plane: usize, count: usize) -> usize {
    plane.max(count).next_multiple_of(32).min(256)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_goes_to_the_slab() {
        let space = Space::new([2, 100, 3, 1], 6 * FOUR);
        let place = |at, shared| Place { at, shared };
        assert_eq!(space.places, [place(0, 1), place(0, 0), place(2, 1), place(5, 1)]);
        assert_eq!((space.shared, space.slab), (6, 100));
    }

    #[test]
    fn cifar_fits_and_large_images_do_not() {
        let small = square(3, 32, true, false, 3 * 900, 227 << 10);
        assert_eq!(small.slab, 0);
        assert_eq!(warps(small.shared_bytes(), 227 << 10), 4);
        let large = square(64, 256, false, true, 3 * 256 * 256, 99 << 10);
        assert!(large.slab > 0 && large.shared_bytes() <= WARP);
        assert_eq!(warps(300 << 10, 99 << 10), 1);
    }
}
