//! `Job`: what the work items of a call share, and the walk over a shard's images, group of tiles by group of tiles.

use std::ops::Range;

use super::energy::{EnergySpace, energies};
use super::isa::Isa;
use super::probe::Probe;
use super::simd::{LANES, Lanes};
use super::tile::{Pixel, Tile};
use crate::bank::Bank;
use crate::error::Result;
use crate::windows::Windows;

/// Tiles a group where windows are many: lanes are summed over tiles before the costly sum across lanes, but the
/// energies of a group have to stay in the second-level cache.
pub(super) const TILES: usize = 2;

/// Everything the items of a pass share.
pub(super) struct Job<'a, P> {
    pub(super) bank: &'a Bank<'a>,
    pub(super) pixels: &'a [P],
    /// The windows, and their mirror image for flipped probes.
    pub(super) views: &'a [Windows; 2],
    pub(super) probes: &'a [Probe],
    pub(super) isa: Isa,
    /// Weights below `2^-cutoff` of a window's sum are left out: together at the very worst `2^-20` of it, and as a rule
    /// below `2^-30`, because few images lie just there.
    pub(super) cutoff: f64,
}

/// A group of tiles and the energies of a probe on it; working space of one thread.
pub(super) struct Group<P: Pixel> {
    tiles: Vec<Tile<P>>,
    filled: usize,
    energies: Vec<Lanes>,
    space: EnergySpace,
}

impl<'a, P: Pixel> Job<'a, P> {
    /// A job over all of `bank`, whose pixels are `pixels`.
    pub(super) fn new(
        bank: &'a Bank<'a>,
        pixels: &'a [P],
        views: &'a [Windows; 2],
        probes: &'a [Probe],
    ) -> Result<Self> {
        let cutoff = 20.0 + (2.0 * bank.len() as f64).log2();
        Ok(Self { bank, pixels, views, probes, isa: Isa::best()?, cutoff })
    }

    /// The same job for other probes.
    pub(super) fn with(&self, probes: &'a [Probe]) -> Self {
        Self { probes, ..*self }
    }

    /// How far above the least an energy may lie and still carry weight.
    pub(super) fn margin(&self, probe: &Probe) -> f32 {
        (self.cutoff / probe.rate) as f32
    }

    /// Pixels of a channel.
    pub(super) fn plane(&self) -> usize {
        self.views[0].height() * self.views[0].width()
    }

    /// The stored pixels of an image, `[channel][pixel]`.
    pub(super) fn image(&self, index: usize) -> &'a [P] {
        self.images(index..index + 1)
    }

    /// The stored pixels of images, one after the other.
    pub(super) fn images(&self, range: Range<usize>) -> &'a [P] {
        let len = self.bank.image_len();
        &self.pixels[range.start * len..range.end * len]
    }

    /// The windows as a probe sees them.
    pub(super) fn view(&self, probe: &Probe) -> &'a Windows {
        &self.views[usize::from(probe.flipped)]
    }
}

impl<P: Pixel> Group<P> {
    /// Space for `tiles` of a job's tiles.
    pub(super) fn new(job: &Job<'_, P>, tiles: usize) -> Self {
        Self {
            tiles: (0..tiles).map(|_| Tile::new(job.bank.image_len())).collect(),
            filled: 0,
            energies: vec![Lanes::ZERO; tiles * job.views[0].count()],
            space: EnergySpace::default(),
        }
    }

    /// Transposes the images from `first` on into tiles, as many as `shard` has and fit.
    pub(super) fn load(&mut self, job: &Job<'_, P>, first: usize, shard: &Range<usize>) {
        let image_len = job.bank.image_len();
        let last = shard.end.min(first + self.tiles.len() * LANES);
        let parts = job.pixels[first * image_len..last * image_len].chunks(LANES * image_len);
        self.filled = parts.len();
        let expanded = job.probes.iter().any(|probe| probe.expanded);
        for (tile, part) in self.tiles.iter_mut().zip(parts) {
            tile.load(job.isa, part);
            if expanded {
                tile.square(job.isa, job.plane());
            }
        }
    }

    /// The first images of the groups of a shard.
    pub(super) fn firsts(&self, shard: &Range<usize>) -> impl Iterator<Item = usize> + use<P> {
        shard.clone().step_by(self.tiles.len() * LANES)
    }

    /// Computes the energies of a probe on the whole group.
    pub(super) fn energies(&mut self, job: &Job<'_, P>, probe: usize) {
        let probe = &job.probes[probe];
        let windows = job.view(probe);
        for (tile, out) in self.tiles[..self.filled].iter().zip(self.energies.chunks_exact_mut(windows.count())) {
            energies(job.isa, windows, tile, probe, &mut self.space, out);
        }
    }

    /// The energies `[tile][window]` of the last probe.
    pub(super) fn last_energies(&mut self, job: &Job<'_, P>) -> &mut [Lanes] {
        &mut self.energies[..self.filled * job.views[0].count()]
    }

    /// The tiles with their energies of the last probe.
    pub(super) fn tiles_and_energies(&mut self, job: &Job<'_, P>) -> impl Iterator<Item = (&Tile<P>, &mut [Lanes])> {
        let count = job.views[0].count();
        self.tiles[..self.filled].iter().zip(self.energies.chunks_exact_mut(count))
    }
}
