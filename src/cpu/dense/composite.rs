//! Pass 2 for one probe on one group of tiles: energies become weights, weights become coefficients of pixels, and
//! coefficients times images are accumulated. Where windows are squares, this happens row by row, in the first-level
//! cache.

use super::accumulate::{Accumulate, Term};
use super::arithmetic::{Arithmetic, EnergyBlock};
use super::box_adjoint::{BoxAdjoint, MaskAdjoint};
use super::group::TILES;
use crate::components::{Components, Kind};
use crate::cpu::chunks::{exact_chunks, exact_chunks_mut};
use crate::cpu::job::Job;
use crate::cpu::tile::{Pixel, Tile};
use crate::runs::MaskRuns;
use crate::simd::F32x16;

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
    /// Doubling tables of masks.
    tables: Vec<F32x16>,
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

    /// Adds to `sums` `[channel][pixel]` what a block of energies allows: a row of pixels where windows are squares.
    pub(crate) fn add<P: Pixel, A: Arithmetic>(
        &mut self,
        job: &Job<'_, P>,
        block: &EnergyBlock<'_, P, A::Lanes>,
        normaliser: &A::Normaliser,
        sums: &mut [f32],
    ) {
        match job.components_of(&job.probes[block.probe]).kind() {
            Kind::Square { .. } => {
                let mut active = [false; TILES];
                let tiles = exact_chunks(block.energies, block.count).zip(&mut self.adjoints);
                for ((energies, adjoint), active) in tiles.zip(&mut active) {
                    let weights = adjoint.next_row();
                    *active = A::normalise(job, block, energies, normaliser, block.count, &mut [false], weights);
                }
                self.add_row(job, block.tiles, active, sums);
            }
            Kind::Masks(runs) => self.add_masks::<P, A>(job, block, runs, normaliser, sums),
            Kind::Full => unreachable!("the full window has panels in place of tiles"),
        }
    }

    /// Adds the rows of pixels below the last row of square windows.
    pub(crate) fn finish<P: Pixel>(&mut self, job: &Job<'_, P>, tiles: &[Tile<P>], sums: &mut [f32]) {
        let components = &job.mirrors[0];
        if matches!(components.kind(), Kind::Square { .. }) {
            while self.row < components.height() {
                self.add_row(job, tiles, [false; TILES], sums);
            }
        }
    }

    /// Adds the next row of pixels; `active` tells which tiles have weights on the row of windows that starts there.
    fn add_row<P: Pixel>(&mut self, job: &Job<'_, P>, tiles: &[Tile<P>], active: [bool; TILES], sums: &mut [f32]) {
        let (width, plane) = (self.width, self.plane);
        let mut terms: [Term<'_, P>; TILES] = [(&tiles[0], &[]); TILES];
        let mut count = 0;
        let per_tile = tiles.iter().zip(&mut self.adjoints).zip(exact_chunks_mut(&mut self.coefficients, width));
        for (((tile, adjoint), coefficients), active) in per_tile.zip(active) {
            if adjoint.push_row(job.isa, active, coefficients) {
                terms[count] = (tile, coefficients);
                count += 1;
            }
        }
        job.isa.run(Accumulate { terms: &terms[..count], first: self.row * width, plane, sums });
        self.row += 1;
    }

    fn add_masks<P: Pixel, A: Arithmetic>(
        &mut self,
        job: &Job<'_, P>,
        block: &EnergyBlock<'_, P, A::Lanes>,
        runs: &MaskRuns,
        normaliser: &A::Normaliser,
        sums: &mut [f32],
    ) {
        let Self { weights, active, tables, coefficients, plane, .. } = self;
        let mut terms: [Term<'_, P>; TILES] = [(&block.tiles[0], &[]); TILES];
        let mut count = 0;
        let tiles = block.tiles.iter().zip(exact_chunks(block.energies, block.count));
        for ((tile, energies), out) in tiles.zip(exact_chunks_mut(coefficients, *plane)) {
            if A::normalise(job, block, energies, normaliser, 1, active, weights) {
                job.isa.run(MaskAdjoint { weights, active, runs, tables, out });
                terms[count] = (tile, out);
                count += 1;
            }
        }
        job.isa.run(Accumulate { terms: &terms[..count], first: 0, plane: *plane, sums });
    }
}
