//! `Job`: what the work items of a call share, and the walk over a shard's images, group of tiles by group of tiles.

use std::ops::Range;

use super::energy::{EnergySpace, PROBES, energies};
use super::isa::Isa;
use super::probe::Probe;
use super::simd::{LANES, Lanes};
use super::tile::{Pixel, Tile};
use crate::bank::Bank;
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
    /// Weights below `2^-cutoff` of a window's largest are left out: together at the very worst `2^-20` of its sum, and
    /// as a rule below `2^-30`, because few images lie just there.
    pub(super) cutoff: f64,
}

/// A group of tiles and the energies of a few probes on it; working space of one thread.
pub(super) struct Group<P: Pixel> {
    tiles: Vec<Tile<P>>,
    filled: usize,
    energies: Vec<Lanes>,
    space: EnergySpace,
}

impl<'a, P: Pixel> Job<'a, P> {
    /// A job over all of `bank`, whose pixels are `pixels`.
    pub(super) fn new(bank: &'a Bank<'a>, pixels: &'a [P], views: &'a [Windows; 2], probes: &'a [Probe]) -> Self {
        let cutoff = 20.0 + (2.0 * bank.len() as f64).log2();
        Self { bank, pixels, views, probes, isa: Isa::best(), cutoff }
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
        let len = self.bank.image_len();
        &self.pixels[index * len..(index + 1) * len]
    }

    /// The windows as a probe sees them.
    pub(super) fn view(&self, probe: &Probe) -> &'a Windows {
        &self.views[usize::from(probe.flipped)]
    }

    /// Probes in ones and twos that a kernel can take together.
    pub(super) fn pairs(&self, probes: Range<usize>) -> impl Iterator<Item = Range<usize>> {
        let mut next = probes.start;
        std::iter::from_fn(move || {
            let first = self.probes[next..probes.end].first()?;
            let alike = |p: &&Probe| (p.expanded, p.flipped) == (first.expanded, first.flipped);
            let count = self.probes[next..probes.end].iter().take(PROBES).take_while(alike).count();
            next += count;
            Some(next - count..next)
        })
    }
}

impl<P: Pixel> Group<P> {
    /// Space for `tiles` of a job's tiles.
    pub(super) fn new(job: &Job<'_, P>, tiles: usize) -> Self {
        Self {
            tiles: (0..tiles).map(|_| Tile::new(job.bank.image_len())).collect(),
            filled: 0,
            energies: vec![Lanes::ZERO; PROBES * tiles * job.views[0].count()],
            space: EnergySpace::default(),
        }
    }

    /// Transposes the images from `first` on into tiles, as many as `shard` has and fit.
    pub(super) fn load(&mut self, job: &Job<'_, P>, first: usize, shard: &Range<usize>) {
        let image_len = job.bank.image_len();
        let last = shard.end.min(first + self.tiles.len() * LANES);
        let parts = job.pixels[first * image_len..last * image_len].chunks(LANES * image_len);
        self.filled = parts.len();
        self.tiles.iter_mut().zip(parts).for_each(|(tile, part)| tile.load(part));
    }

    /// The first images of the groups of a shard.
    pub(super) fn firsts(&self, shard: &Range<usize>) -> impl Iterator<Item = usize> + use<P> {
        shard.clone().step_by(self.tiles.len() * LANES)
    }

    /// The tiles that hold images.
    pub(super) fn tiles(&self) -> &[Tile<P>] {
        &self.tiles[..self.filled]
    }

    /// Computes the energies of one or two probes on the whole group.
    pub(super) fn energies(&mut self, job: &Job<'_, P>, probes: Range<usize>) {
        let count = job.views[0].count();
        let both: Vec<&Probe> = job.probes[probes].iter().collect();
        let windows = job.view(both[0]);
        let (first, second) = self.energies.split_at_mut(self.tiles.len() * count);
        let outs = first.chunks_exact_mut(count).zip(second.chunks_exact_mut(count));
        for (tile, (first, second)) in self.tiles[..self.filled].iter().zip(outs) {
            let mut outs = [first, second];
            energies(job.isa, windows, tile, &both, &mut self.space, &mut outs[..both.len()]);
        }
    }

    /// The energies `[tile][window]` of the first or second probe of the last call.
    pub(super) fn energies_of(&mut self, job: &Job<'_, P>, which: usize) -> &mut [Lanes] {
        let count = job.views[0].count();
        &mut self.energies[which * self.tiles.len() * count..][..self.filled * count]
    }

    /// The tiles with the energies of the first or second probe of the last call, tile by tile.
    pub(super) fn tiles_and_energies(
        &mut self,
        job: &Job<'_, P>,
        which: usize,
    ) -> impl Iterator<Item = (&Tile<P>, &mut [Lanes])> {
        let count = job.views[0].count();
        let energies = self.energies[which * self.tiles.len() * count..].chunks_exact_mut(count);
        self.tiles[..self.filled].iter().zip(energies)
    }
}
