//! `GroupWeights`: the posterior weights of a group of tiles on all windows, for passes that read them more than once.

use super::arithmetic::{Arithmetic, TILES};
use super::group::Group;
use crate::cpu::chunks::exact_chunks;
use crate::cpu::job::Job;
use crate::cpu::tile::Pixel;
use crate::simd::F32x16;

/// The weights of a probe on a group of tiles; working space of one thread.
#[derive(Debug, Default)]
pub(crate) struct GroupWeights {
    /// `[tile][window]`.
    weights: Vec<F32x16>,
    /// `[tile][row of windows]`: whether a row holds any weight; the weights of others are not written.
    active: Vec<bool>,
    /// Working space: the weights of a block.
    block: Vec<F32x16>,
    count: usize,
    rows: usize,
}

impl GroupWeights {
    /// Computes the weights of a probe. Returns whether there are any that count.
    pub(crate) fn fill<P: Pixel, A: Arithmetic>(
        &mut self,
        job: &Job<'_, P>,
        group: &mut Group<P, A>,
        probe: usize,
        normaliser: &A::Normaliser,
    ) -> bool {
        self.start(job);
        let (rows, count, columns) = (self.rows, self.count, self.count / self.rows);
        let mut any = false;
        group.energies(job, probe, |block| {
            for (tile, energies) in exact_chunks(block.energies, block.count).enumerate() {
                let weights = &mut self.weights[tile * count + block.first..][..block.count];
                let active = &mut self.active[tile * rows + block.first / columns..][..block.count / columns];
                any |= A::normalise(job, &block, energies, normaliser, columns, active, weights);
            }
        });
        any
    }

    /// Updates the state of pass 1 with the group, and keeps the weights relative to it; `rescaled` gets the windows whose earlier
    /// weights are to be multiplied with a number. Returns whether there are any that count.
    pub(crate) fn update<P: Pixel, A: Arithmetic>(
        &mut self,
        job: &Job<'_, P>,
        group: &mut Group<P, A>,
        probe: usize,
        state: &mut A::State,
        rescaled: &mut Vec<(usize, f64)>,
    ) -> bool {
        self.start(job);
        let (rows, columns, count) = (self.rows, self.count / self.rows, self.count);
        let mut any = false;
        let Self { weights, active, block: in_block, .. } = self;
        group.energies(job, probe, |block| {
            in_block.resize(block.energies.len(), F32x16::ZERO);
            let (first_row, rows_at_once) = (block.first / columns, block.count / columns);
            let (of_first, rest) = active.split_at_mut(rows);
            let of_block = &mut of_first[first_row..][..rows_at_once];
            A::update_and_weigh(job, &block, state, of_block, in_block, rescaled);
            any |= of_block.iter().any(|&active| active);
            rest[first_row..][..rows_at_once].copy_from_slice(of_block);
            for (tile, from) in exact_chunks(in_block, block.count).enumerate() {
                weights[tile * count + block.first..][..block.count].copy_from_slice(from);
            }
        });
        any
    }

    fn start<P: Pixel>(&mut self, job: &Job<'_, P>) {
        let (rows, columns) = job.mirrors[0].grid();
        (self.count, self.rows) = (rows * columns, rows);
        self.weights.resize(TILES * self.count, F32x16::ZERO);
        self.active.clear();
        self.active.resize(TILES * rows, false);
    }

    /// The weights of a tile on a row of windows, if there are any.
    pub(crate) fn row(&self, tile: usize, row: usize) -> Option<&[F32x16]> {
        let columns = self.count / self.rows;
        let is_active = self.active[tile * self.rows + row];
        is_active.then(|| &self.weights[tile * self.count + row * columns..][..columns])
    }

    /// Copies the weights of a tile on rows of windows from `first_row` on, and marks in `active` those that hold any. Returns
    /// whether any does.
    pub(crate) fn copy(&self, tile: usize, first_row: usize, active: &mut [bool], out: &mut [F32x16]) -> bool {
        self.map(tile, first_row, active, out, |_, from, to| to.copy_from_slice(from))
    }

    /// The same with weights that `write` makes of those of a row, which it is told.
    pub(crate) fn map(
        &self,
        tile: usize,
        first_row: usize,
        active: &mut [bool],
        out: &mut [F32x16],
        mut write: impl FnMut(usize, &[F32x16], &mut [F32x16]),
    ) -> bool {
        let mut any = false;
        let rows = active.iter_mut().zip(out.chunks_exact_mut(self.count / self.rows));
        for (row, (active, out)) in (first_row..).zip(rows) {
            let from = self.row(tile, row);
            *active = from.is_some();
            any |= *active;
            if let Some(from) = from {
                write(row, from, out);
            }
        }
        any
    }
}
