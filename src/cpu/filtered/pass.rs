//! `Pass`: what is done with energies, and the blocks in which they come.

use std::ops::Range;

use crate::cpu::job::Job;
use crate::cpu::tile::{Pixel, Tile};
use crate::simd::F32x16;

/// Energies of a probe on components side by side, of one or two tiles of images under a view.
pub(super) struct Block<'a, P: Pixel> {
    pub(super) tiles: &'a [Tile<P>],
    /// `[tile][column]`.
    pub(super) energies: &'a [F32x16],
    /// The columns of these components.
    pub(super) part: Range<usize>,
    /// The first component.
    pub(super) first: usize,
    /// Where its answer lies among the pixels of a tile, if it has one of its own, and how far apart those of several answers
    /// lie.
    pub(super) place: usize,
    pub(super) apart: usize,
    pub(super) logit_scale: f32,
}

impl<'a, P: Pixel> Block<'a, P> {
    /// The energies of a tile.
    #[inline(always)]
    pub(super) fn of_tile(&self, tile: usize) -> &'a [F32x16] {
        let columns = self.energies.len() / self.tiles.len();
        &self.energies[tile * columns..][self.part.clone()]
    }
}

/// What a pass over the images does with energies.
pub(super) trait Pass: Sync {
    /// The working space of a thread, whatever the probe.
    type Space: Default + Send;
    /// What it keeps for a probe while it works on a shard.
    type State: Default + Send;
    /// What it finds for a probe on a shard.
    type Partial: Send;
    /// What it finds for a probe.
    type Total: Send;

    /// Before any image of a shard; images `negligible` powers of two below the best so far may be passed over.
    fn start(&self, state: &mut Self::State, negligible: f32);

    /// Before the first block of a group of images under a view.
    fn start_group(&self, _space: &mut Self::Space) {}

    /// Takes in a block of energies of a probe of the job.
    fn add<P: Pixel>(
        &self,
        job: &Job<'_, P>,
        probe: usize,
        block: &Block<'_, P>,
        space: &mut Self::Space,
        state: &mut Self::State,
    );

    /// After the last block of a group of images under a view.
    fn end_group<P: Pixel>(
        &self,
        job: &Job<'_, P>,
        tiles: &[Tile<P>],
        space: &mut Self::Space,
        state: &mut Self::State,
    );

    /// After the last image of a shard.
    fn finish<P: Pixel>(&self, job: &Job<'_, P>, state: &mut Self::State) -> Self::Partial;

    /// Adds a later shard; the order of shards fixes the bits.
    fn merge(&self, total: &mut Self::Total, partial: Self::Partial);
}
