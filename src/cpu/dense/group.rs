//! `Group`: a few tiles of images, transposed once and used by every probe of a work item, and the energies on them.

use std::ops::Range;

use super::arithmetic::{Arithmetic, EnergyBlock, TILES, TilePenalties};
use crate::cpu::job::Job;
use crate::cpu::probe::Probe;
use crate::cpu::scheduler::blocks;
use crate::cpu::tile::{Pixel, Tile};
use crate::simd::LANES;

/// A group of tiles and the energies on it; working space of one thread.
pub(crate) struct Group<P: Pixel, A: Arithmetic> {
    tiles: Vec<Tile<P>>,
    /// Positions of the images they hold.
    positions: Range<usize>,
    space: A::Space,
}

impl<P: Pixel, A: Arithmetic> Group<P, A> {
    /// Images per group.
    pub(crate) const IMAGES: usize = TILES * LANES;

    /// Space for a job's groups.
    pub(crate) fn new(job: &Job<'_, P>) -> Self {
        Self {
            tiles: (0..TILES).map(|_| Tile::new(job.bank.image_shape()[0], job.plane())).collect(),
            positions: 0..0,
            space: A::space(job.windows_at_once()),
        }
    }

    /// Transposes the image at position `first` and those after it into tiles, as many as fit and `shard` has.
    pub(crate) fn load(&mut self, job: &Job<'_, P>, first: usize, shard: &Range<usize>) {
        self.positions = first..shard.end.min(first + Self::IMAGES);
        let filled = load_tiles(job, &self.positions, &mut self.tiles);
        A::prepare(&mut self.space, job, &mut self.tiles[..filled]);
    }

    /// Number of tiles that hold images.
    fn filled(&self) -> usize {
        self.positions.len().div_ceil(LANES)
    }

    /// The tiles that hold images.
    pub(crate) fn tiles(&self) -> &[Tile<P>] {
        &self.tiles[..self.filled()]
    }

    /// Computes the energies of a probe and hands them to `consume`, see [`Arithmetic::energies`]; none once the call is
    /// stopped, as tiles may not be complete then.
    pub(crate) fn energies(
        &mut self,
        job: &Job<'_, P>,
        probe: usize,
        consume: impl FnMut(EnergyBlock<'_, P, A::Lanes>),
    ) {
        if job.is_stopped() {
            return;
        }
        let filled = self.filled();
        let penalties = tile_penalties(job, &job.probes[probe], &self.positions);
        A::energies(&mut self.space, job, probe, &self.tiles[..filled], &penalties, consume);
    }
}

/// Transposes the images at some positions into tiles, unless the call is stopped; returns how many tiles they fill.
pub(crate) fn load_tiles<P: Pixel>(job: &Job<'_, P>, positions: &Range<usize>, tiles: &mut [Tile<P>]) -> usize {
    let images = job.images(positions.clone());
    job.check_images(&images, positions.start);
    for (tile, images) in tiles.iter_mut().zip(images.chunks(LANES)).take_while(|_| !job.is_stopped()) {
        tile.load(job.isa, images, job.centre);
    }
    positions.len().div_ceil(LANES)
}

/// The penalties of the images at some positions, by tile.
pub(crate) fn tile_penalties<P: Pixel>(job: &Job<'_, P>, probe: &Probe, positions: &Range<usize>) -> TilePenalties {
    let mut penalties = [None; TILES];
    for (penalties, positions) in penalties.iter_mut().zip(blocks(positions.clone(), LANES)) {
        *penalties = job.penalties(probe, positions);
    }
    penalties
}
