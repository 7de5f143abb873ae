//! Pass 2 for one probe on one group of tiles: energies become weights, weights coefficients, coefficients times images
//! the composite. Where windows are squares, all of it happens a row at a time, in the first-level cache.

use super::gather::{Term, gather};
use super::job::{Job, Part, TILES};
use super::parts::{parts, parts_mut};
use super::simd::Lanes;
use super::spread::{SpreadRows, spread_masks};
use super::tile::{Pixel, Tile};
use super::weigh::{Softmax, weigh};
use crate::runs::Runs;
use crate::windows::{Kind, Windows};

/// Per window the shift and the scale of its weights.
pub(super) type Normaliser = (Vec<f32>, Vec<f32>);

/// Working space of one thread, and how far the group at hand has come.
#[derive(Default)]
pub(super) struct Composites {
    /// Square windows: the rows in work, one a tile.
    rows: Vec<SpreadRows>,
    /// Square windows: the next row of pixels.
    row: usize,
    /// `[tile][pixel]` of a row of pixels, or of the plane where windows are masks.
    coefficients: Vec<Lanes>,
    /// Masks: their weights, and which carry any.
    weights: Vec<Lanes>,
    live: Vec<bool>,
    /// Doubling tables of masks.
    tables: Vec<Lanes>,
}

impl Composites {
    /// Before the first energies of a probe on a group.
    pub(super) fn start(&mut self, windows: &Windows) {
        self.row = 0;
        let mut room = windows.width();
        match windows.kind() {
            Kind::Square { side } => {
                self.rows.resize_with(TILES, SpreadRows::default);
                for rows in &mut self.rows {
                    rows.start(windows, *side);
                }
            }
            Kind::Full | Kind::Masks(_) => {
                self.weights.resize(windows.count(), Lanes::ZERO);
                self.live.resize(windows.count(), false);
                room *= windows.height();
            }
        }
        self.coefficients.resize(TILES * room, Lanes::ZERO);
    }

    /// Adds to `sums` `[channel][pixel]` what the energies at hand allow; those of square windows come row by row.
    pub(super) fn add<P: Pixel>(
        &mut self,
        job: &Job<'_, P>,
        part: &Part<'_, P>,
        normaliser: &Normaliser,
        sums: &mut [f32],
    ) {
        match job.view(&job.probes[part.probe]).kind() {
            Kind::Square { .. } => {
                let mut live = [false; TILES];
                let tiles = parts(part.energies, part.count).zip(&mut self.rows);
                for ((energies, rows), live) in tiles.zip(&mut live) {
                    *live = weigh_part(job, part, energies, normaliser, part.count, &mut [false], rows.slot());
                }
                self.add_row(job, part.tiles, live, sums);
            }
            Kind::Masks(runs) => self.add_masks(job, part, runs, normaliser, sums),
            Kind::Full => unreachable!("the full window has panels in place of tiles"),
        }
    }

    /// Adds the rows of pixels below the last row of square windows.
    pub(super) fn finish<P: Pixel>(&mut self, job: &Job<'_, P>, tiles: &[Tile<P>], sums: &mut [f32]) {
        let windows = &job.views[0];
        if matches!(windows.kind(), Kind::Square { .. }) {
            while self.row < windows.height() {
                self.add_row(job, tiles, [false; TILES], sums);
            }
        }
    }

    /// The next row of pixels; `live` tells which tiles have weights on the row of windows that starts there.
    fn add_row<P: Pixel>(&mut self, job: &Job<'_, P>, tiles: &[Tile<P>], live: [bool; TILES], sums: &mut [f32]) {
        let width = job.views[0].width();
        let mut terms: [Term<'_, P>; TILES] = [(&tiles[0], &[]); TILES];
        let mut count = 0;
        let parts = tiles.iter().zip(&mut self.rows).zip(parts_mut(&mut self.coefficients, width));
        for (((tile, rows), coefficients), live) in parts.zip(live) {
            if rows.next(job.isa, live, coefficients) {
                terms[count] = (tile, coefficients);
                count += 1;
            }
        }
        gather(job.isa, &terms[..count], self.row * width, job.plane(), sums);
        self.row += 1;
    }

    fn add_masks<P: Pixel>(
        &mut self,
        job: &Job<'_, P>,
        part: &Part<'_, P>,
        runs: &Runs,
        normaliser: &Normaliser,
        sums: &mut [f32],
    ) {
        let Self { weights, live, tables, coefficients, .. } = self;
        let mut terms: [Term<'_, P>; TILES] = [(&part.tiles[0], &[]); TILES];
        let mut count = 0;
        let tiles = part.tiles.iter().zip(parts(part.energies, part.count));
        for ((tile, energies), coefficients) in tiles.zip(parts_mut(coefficients, job.plane())) {
            if weigh_part(job, part, energies, normaliser, 1, live, weights) {
                spread_masks(job.isa, runs, weights, live, tables, coefficients);
                terms[count] = (tile, coefficients);
                count += 1;
            }
        }
        gather(job.isa, &terms[..count], 0, job.plane(), sums);
    }
}

/// The weights of one tile's energies; see [`weigh`].
fn weigh_part<P: Pixel>(
    job: &Job<'_, P>,
    part: &Part<'_, P>,
    energies: &[Lanes],
    (shift, scale): &Normaliser,
    columns: usize,
    live: &mut [bool],
    weights: &mut [Lanes],
) -> bool {
    let windows = part.first..part.first + part.count;
    let softmax = Softmax {
        shift: &shift[windows.clone()],
        scale: &scale[windows],
        rate: job.probes[part.probe].rate as f32,
        cutoff: job.cutoff as f32,
    };
    weigh(job.isa, energies, &softmax, columns, live, weights)
}
