//! What one work item does: walk the shard group by group, in pass 1 for its posterior, in pass 2 for its composite.

use super::energy::{EnergySpace, energies};
use super::gather::gather;
use super::isa::Isa;
use super::probe::Probe;
use super::rounds::Item;
use super::simd::{LANES, Lanes};
use super::spread::{SpreadSpace, spread};
use super::tile::{Pixel, Tile};
use super::weigh::{LaneState, absorb, fold_lanes, weigh};
use crate::bank::Bank;
use crate::windows::Windows;

/// Tiles a group: their lanes are summed before the costly sum across lanes, and states are touched once a group.
const GROUP: usize = 4;

/// Everything the items of a call share.
pub(super) struct Job<'a, P> {
    pub(super) bank: &'a Bank<'a>,
    pixels: &'a [P],
    /// The windows, and their mirror image for flipped probes.
    pub(super) views: &'a [Windows; 2],
    pub(super) probes: &'a [Probe],
    isa: Isa,
    /// Weights below `2^-cutoff` of a window's largest are left out: together less than `2^-30` of its sum.
    cutoff: f32,
}

/// What pass 1 finds on one shard.
pub(super) struct ShardPosterior {
    pub(super) least: Vec<f32>,
    pub(super) sum: Vec<f32>,
}

/// Working space of one thread.
pub(super) struct Space<P: Pixel> {
    tiles: Vec<Tile<P>>,
    energies: Vec<Lanes>,
    coefficients: Vec<Lanes>,
    live: Vec<bool>,
    energy: EnergySpace,
    spread: SpreadSpace,
    states: Vec<LaneState>,
}

impl<'a, P: Pixel> Job<'a, P> {
    pub(super) fn new(bank: &'a Bank<'a>, pixels: &'a [P], views: &'a [Windows; 2], probes: &'a [Probe]) -> Self {
        let cutoff = 30.0 + (2.0 * bank.len() as f32).log2();
        Self { bank, pixels, views, probes, isa: Isa::best(), cutoff }
    }

    /// Fresh working space.
    pub(super) fn space(&self) -> Space<P> {
        let windows = &self.views[0];
        let plane = windows.height() * windows.width();
        Space {
            tiles: (0..GROUP).map(|_| Tile::new(self.bank.image_len())).collect(),
            energies: vec![Lanes::ZERO; GROUP * windows.count()],
            coefficients: vec![Lanes::ZERO; GROUP * plane],
            live: vec![false; windows.grid().0],
            energy: EnergySpace::default(),
            spread: SpreadSpace::default(),
            states: Vec::new(),
        }
    }

    fn view(&self, probe: &Probe) -> &'a Windows {
        &self.views[usize::from(probe.flipped)]
    }

    /// Pass 1 on one item: the posterior of each of its probes over the images of the shard.
    pub(super) fn posteriors(&self, item: &Item, space: &mut Space<P>) -> Vec<ShardPosterior> {
        let count = self.views[0].count();
        let (_, columns) = self.views[0].grid();
        let probes = &self.probes[item.probes.clone()];
        space.states.resize_with(probes.len(), LaneState::default);
        space.states.iter_mut().for_each(|state| state.start(count));
        for group in item.images.clone().step_by(GROUP * LANES) {
            let tiles = self.load(space, group..item.images.end);
            for (probe, state) in probes.iter().zip(&mut space.states) {
                for (tile, out) in space.tiles[..tiles].iter().zip(space.energies.chunks_exact_mut(count)) {
                    energies(self.isa, self.view(probe), tile, probe, &mut space.energy, out);
                }
                absorb(self.isa, &space.energies[..tiles * count], probe.rate, columns, state);
            }
        }
        let fold = |(probe, state): (&Probe, &LaneState)| {
            let mut part = ShardPosterior { least: vec![0.0; count], sum: vec![0.0; count] };
            fold_lanes(self.isa, state, probe.rate, &mut part.least, &mut part.sum);
            part
        };
        probes.iter().zip(&space.states).map(fold).collect()
    }

    /// Pass 2 on one item: for each of its probes the weighted sum of the shard's centred pixels, `[channel][pixel]`.
    pub(super) fn composites(
        &self,
        item: &Item,
        normalisers: &[(Vec<f32>, Vec<f32>)],
        space: &mut Space<P>,
    ) -> Vec<Vec<f32>> {
        let mut sums = vec![vec![0.0; self.bank.image_len()]; item.probes.len()];
        for group in item.images.clone().step_by(GROUP * LANES) {
            let tiles = self.load(space, group..item.images.end);
            for (probe, sums) in item.probes.clone().zip(&mut sums) {
                self.composite_group(probe, &normalisers[probe], tiles, space, sums);
            }
        }
        sums
    }

    fn composite_group(
        &self,
        probe: usize,
        (least, scale): &(Vec<f32>, Vec<f32>),
        tiles: usize,
        space: &mut Space<P>,
        sums: &mut [f32],
    ) {
        let probe = &self.probes[probe];
        let windows = self.view(probe);
        let (_, columns) = windows.grid();
        let plane = windows.height() * windows.width();
        let weights = &mut space.energies[..windows.count()];
        let mut terms = Vec::with_capacity(GROUP);
        for (tile, coefficients) in space.tiles[..tiles].iter().zip(space.coefficients.chunks_exact_mut(plane)) {
            energies(self.isa, windows, tile, probe, &mut space.energy, weights);
            if weigh(self.isa, weights, least, scale, probe.rate, self.cutoff, columns, &mut space.live) {
                spread(self.isa, windows, weights, &space.live, &mut space.spread, coefficients);
                terms.push((tile, &*coefficients));
            }
        }
        gather(self.isa, &terms, self.bank.scale().0 as f32, sums);
    }

    /// Transposes the next images of `rest` into tiles and returns how many tiles they fill.
    fn load(&self, space: &mut Space<P>, rest: std::ops::Range<usize>) -> usize {
        let image_len = self.bank.image_len();
        let images = rest.start..rest.end.min(rest.start + GROUP * LANES);
        let pixels = &self.pixels[images.start * image_len..images.end * image_len];
        let parts = pixels.chunks(LANES * image_len);
        let filled = parts.len();
        space.tiles.iter_mut().zip(parts).for_each(|(tile, part)| tile.load(part));
        filled
    }
}
