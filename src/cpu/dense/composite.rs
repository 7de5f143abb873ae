//! Pass 2 for one probe on one group of tiles: energies become weights, weights become coefficients of pixels, and
//! coefficients times images are accumulated. Where windows are squares, this happens row by row, in the first-level
//! cache.

use super::accumulate::{Accumulate, Term};
use super::arithmetic::{Arithmetic, EnergyBlock, TILES};
use super::box_adjoint::BoxAdjoint;
use super::masks::MaskAdjoint;
use crate::components::{Components, Kind};
use crate::cpu::chunks::exact_chunks_mut;
use crate::cpu::job::Job;
use crate::cpu::tile::{Pixel, Tile};
use crate::runs::MaskRuns;
use crate::simd::{F32x16, Isa};

/// Working space of one thread, and how far it has come on the current group.
#[derive(Default)]
pub(crate) struct CompositeStage {
    /// Square windows: the rows of weights in use, per tile.
    adjoints: Vec<BoxAdjoint>,
    /// Square windows: the next row of pixels.
    row: usize,
    /// Columns of an image, and pixels of a channel.
    width: usize,
    plane: usize,
    /// `[tile][pixel]` of a row of pixels, or of the plane where windows are masks.
    coefficients: Vec<F32x16>,
    /// Masks: their weights, and which carry any.
    weights: Vec<F32x16>,
    active: Vec<bool>,
}

impl CompositeStage {
    /// Prepares for the energies of a probe on a group.
    pub(crate) fn start(&mut self, components: &Components) {
        (self.row, self.width, self.plane) = (0, components.width(), components.height() * components.width());
        let mut pixels = self.width;
        match components.kind() {
            Kind::Square { side } => {
                self.adjoints.resize_with(TILES, BoxAdjoint::default);
                for adjoint in &mut self.adjoints {
                    adjoint.start(components, *side);
                }
            }
            Kind::Full | Kind::Masks(_) => {
                self.weights.resize(components.count(), F32x16::ZERO);
                self.active.resize(components.count(), false);
                pixels = self.plane;
            }
        }
        self.coefficients.resize(TILES * pixels, F32x16::ZERO);
    }

    /// Adds to `sums` `[channel][pixel]` what the weights of a block of windows allow: a row of pixels where windows are
    /// squares. `fill` writes the weights of a tile, marks which rows of windows hold any, and returns whether any row does.
    pub(crate) fn add<P: Pixel>(
        &mut self,
        isa: Isa,
        components: &Components,
        tiles: &[Tile<P>],
        sums: &mut [f32],
        mut fill: impl FnMut(usize, &mut [bool], &mut [F32x16]) -> bool,
    ) {
        match components.kind() {
            Kind::Square { .. } => {
                let mut active = [false; TILES];
                for (t, adjoint) in self.adjoints.iter_mut().enumerate().take(tiles.len()) {
                    active[t] = fill(t, &mut [false], adjoint.next_row());
                }
                self.add_row(isa, tiles, active, sums);
            }
            Kind::Masks(runs) => self.add_masks(isa, tiles, runs, sums, fill),
            Kind::Full => unreachable!("the full window has panels in place of tiles"),
        }
    }

    /// Adds the rows of pixels below the last row of square windows.
    pub(crate) fn finish<P: Pixel>(&mut self, isa: Isa, components: &Components, tiles: &[Tile<P>], sums: &mut [f32]) {
        if matches!(components.kind(), Kind::Square { .. }) {
            while self.row < components.height() {
                self.add_row(isa, tiles, [false; TILES], sums);
            }
        }
    }

    /// Adds the next row of pixels; `active` tells which tiles have weights on the row of windows that starts there.
    fn add_row<P: Pixel>(&mut self, isa: Isa, tiles: &[Tile<P>], active: [bool; TILES], sums: &mut [f32]) {
        let (width, plane) = (self.width, self.plane);
        let mut terms: [Term<'_, P>; TILES] = [(&tiles[0], &[]); TILES];
        let mut count = 0;
        let per_tile = tiles.iter().zip(&mut self.adjoints).zip(exact_chunks_mut(&mut self.coefficients, width));
        for (((tile, adjoint), coefficients), active) in per_tile.zip(active) {
            if adjoint.push_row(isa, active, coefficients) {
                terms[count] = (tile, coefficients);
                count += 1;
            }
        }
        isa.run(Accumulate { terms: &terms[..count], first: self.row * width, plane, sums });
        self.row += 1;
    }

    fn add_masks<P: Pixel>(
        &mut self,
        isa: Isa,
        tiles: &[Tile<P>],
        runs: &MaskRuns,
        sums: &mut [f32],
        mut fill: impl FnMut(usize, &mut [bool], &mut [F32x16]) -> bool,
    ) {
        let Self { weights, active, coefficients, width, plane, .. } = self;
        let mut terms: [Term<'_, P>; TILES] = [(&tiles[0], &[]); TILES];
        let mut count = 0;
        for (t, (tile, out)) in tiles.iter().zip(exact_chunks_mut(coefficients, *plane)).enumerate() {
            if fill(t, active, weights) {
                isa.run(MaskAdjoint { weights, active, runs, width: *width, out });
                terms[count] = (tile, out);
                count += 1;
            }
        }
        isa.run(Accumulate { terms: &terms[..count], first: 0, plane: *plane, sums });
    }
}

/// What writes the posterior weights of the tiles of a block of energies, see [`CompositeStage::add`].
pub(crate) fn weights_of<'a, P: Pixel, A: Arithmetic>(
    job: &'a Job<'_, P>,
    block: &'a EnergyBlock<'_, P, A::Lanes>,
    normaliser: &'a A::Normaliser,
) -> impl FnMut(usize, &mut [bool], &mut [F32x16]) -> bool + 'a {
    let (_, columns) = job.mirrors[0].grid();
    move |tile, active, weights| {
        let energies = &block.energies[tile * block.count..][..block.count];
        A::normalise(job, block, energies, normaliser, columns, active, weights)
    }
}
