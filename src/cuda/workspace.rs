//! The workspaces of the kernels over windows: which parts lie in shared memory, and how many warps share a block.

use super::layout::Offset;
use super::sources::Precision;
use crate::regime::MAX_SHORT_SIDE;

/// Bytes of an `F32x4` of `kernels/common.cu`, the unit of every part.
const F32X4_BYTES: usize = 16;

/// Warps fill up so much shared memory of a block of square windows; four and more such blocks fit on an H100.
const SQUARE_BLOCK_BYTES: usize = 56 << 10;

/// Most shared memory per warp of square windows.
const MAX_WARP_BYTES: usize = 40 << 10;

/// Most shared memory per block of masks, so that two blocks fit on an H100.
const MAX_MASK_BLOCK_BYTES: usize = 110 << 10;

/// Most warps per block of square windows.
pub(super) const MAX_WARPS_PER_BLOCK: usize = 4;

/// The parts of a workspace, one after the other in shared memory or in a slab of device memory.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Workspace<const N: usize> {
    pub(super) offsets: [Offset; N],
    /// Length of the part in shared memory, in `F32x4`.
    pub(super) shared_len: usize,
    /// Length of the slab, in `F32x4`.
    pub(super) slab_len: usize,
}

impl<const N: usize> Workspace<N> {
    /// Places parts of these lengths: in shared memory, the first ones first, as long as they fit into `shared_bytes`.
    fn new(lengths: [usize; N], shared_bytes: usize) -> Self {
        let (mut shared_len, mut slab_len) = (0, 0);
        let offsets = lengths.map(|len| {
            let fits = (shared_len + len) * F32X4_BYTES <= shared_bytes;
            let used = if fits { &mut shared_len } else { &mut slab_len };
            let offset = Offset { at: *used as i32, shared: i32::from(fits) };
            *used += len;
            offset
        });
        Self { offsets, shared_len, slab_len }
    }

    pub(super) fn shared_bytes(&self) -> usize {
        self.shared_len * F32X4_BYTES
    }

    pub(super) fn slab_bytes(&self) -> usize {
        self.slab_len * F32X4_BYTES
    }
}

/// Length of the energies of four images, in `F32x4`.
fn energy_len(precision: Precision) -> usize {
    4 * precision.bytes() / F32X4_BYTES
}

/// What a pass over square windows keeps per warp.
#[derive(Debug, Clone, Copy)]
pub(super) struct SquareNeeds {
    pub(super) side: usize,
    /// Width of the images.
    pub(super) width: usize,
    /// Whether weights are summed too, as in pass 2.
    pub(super) weights: bool,
    /// Of energies.
    pub(super) precision: Precision,
    /// Bytes of the state.
    pub(super) state_bytes: usize,
}

impl SquareNeeds {
    /// Whether a row of an image fits into the registers of a warp.
    pub(super) fn narrow(&self) -> bool {
        self.width <= 32
    }

    /// Energy ring, weight ring, row buffers and state of a warp, where a block may have `block_bytes` of shared memory.
    pub(super) fn workspace(&self, block_bytes: usize) -> Workspace<4> {
        // Up to the short side, a box sum keeps no block sum.
        let ring = self.width * if self.side <= MAX_SHORT_SIDE { self.side } else { self.side + 1 };
        let row_buffers = if self.narrow() { 0 } else { 3 * self.width };
        let weight_ring = if self.weights { ring } else { 0 };
        let energy_len = energy_len(self.precision);
        // Row buffers and rings are used most, and get shared memory first.
        let lengths =
            [energy_len * row_buffers, energy_len * ring, weight_ring, self.state_bytes.div_ceil(F32X4_BYTES)];
        let workspace = Workspace::new(lengths, MAX_WARP_BYTES.min(block_bytes));
        let [row_buffers, ring, weight_ring, state] = workspace.offsets;
        Workspace { offsets: [ring, weight_ring, row_buffers, state], ..workspace }
    }
}

/// Warps per block, each with `warp_bytes` of shared memory.
pub(super) fn warps_per_block(warp_bytes: usize, block_bytes: usize) -> usize {
    (SQUARE_BLOCK_BYTES.min(block_bytes) / warp_bytes.max(1)).clamp(1, MAX_WARPS_PER_BLOCK)
}

/// What a pass over masks keeps per block.
#[derive(Debug, Clone, Copy)]
pub(super) struct MaskNeeds {
    /// Pixels of a plane.
    pub(super) plane: usize,
    pub(super) masks: usize,
    /// Of energies.
    pub(super) precision: Precision,
    /// Bytes of the state.
    pub(super) state_bytes: usize,
}

impl MaskNeeds {
    /// Tables, values of the masks, and state of a block, which may have `block_bytes` of shared memory.
    pub(super) fn workspace(&self, block_bytes: usize) -> Workspace<3> {
        let energy_len = energy_len(self.precision);
        let lengths = [2 * energy_len * self.plane, energy_len * self.masks, self.state_bytes.div_ceil(F32X4_BYTES)];
        Workspace::new(lengths, MAX_MASK_BLOCK_BYTES.min(block_bytes))
    }

    pub(super) fn threads_per_block(&self) -> usize {
        self.plane.max(self.masks).next_multiple_of(32).min(256)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::regime::negligible_bits;

    #[test]
    fn parts_that_do_not_fit_go_to_the_slab() {
        let workspace = Workspace::new([2, 100, 3, 1], 6 * F32X4_BYTES);
        let offset = |at, shared| Offset { at, shared };
        assert_eq!(workspace.offsets, [offset(0, 1), offset(0, 0), offset(2, 1), offset(5, 1)]);
        assert_eq!((workspace.shared_len, workspace.slab_len), (6, 100));
    }

    #[test]
    fn cifar_fits_and_large_images_do_not() {
        let cifar =
            SquareNeeds { side: 3, width: 32, weights: false, precision: Precision::Single, state_bytes: 12 * 900 };
        let small = cifar.workspace(227 << 10);
        assert!(cifar.narrow());
        assert_eq!(small.slab_len, 0);
        assert_eq!(warps_per_block(small.shared_bytes(), 227 << 10), 4);
        let double = SquareNeeds { precision: Precision::Double, ..cifar }.workspace(227 << 10);
        assert_eq!(double.shared_len - small.shared_len, 3 * 32, "the ring of energies is twice as long");
        let photograph = SquareNeeds { side: 64, width: 256, weights: true, state_bytes: 12 << 16, ..cifar };
        let large = photograph.workspace(99 << 10);
        assert!(large.slab_len > 0 && large.shared_bytes() <= MAX_WARP_BYTES);
        assert_eq!(warps_per_block(300 << 10, 99 << 10), 1);
    }

    #[test]
    fn switch_points_are_those_of_the_kernels() {
        let short_side = format!("#define MAX_SHORT_SIDE {MAX_SHORT_SIDE}\n");
        assert!(include_str!("kernels/box_sums.cu").contains(&short_side));
        let negligible_bits = format!("return {:?}f + log2f((float)images.shard_len);", negligible_bits(1));
        assert!(include_str!("kernels/common.cu").contains(&negligible_bits));
    }
}
