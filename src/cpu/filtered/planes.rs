//! Energies as weighted sums over the residuals of whole images, for weights of any other kind.

use super::pass::Block;
use super::pieces::Surround;
use super::sums::{Apply, Sums, spread};
use crate::bank::Bank;
use crate::cpu::chunks::exact_chunks_mut;
use crate::cpu::dense::arithmetic::TilePenalties;
use crate::cpu::dense::energies::mark_missing;
use crate::cpu::dense::residuals::{DIRECT, EXPANDED, FACTORED, ImageShape, Residuals};
use crate::cpu::dense::single::penalise;
use crate::cpu::job::Job;
use crate::cpu::precision::Rounding;
use crate::cpu::probe::Probe;
use crate::cpu::tile::{Pixel, Tile};
use crate::filter::{Filter, Operator};
use crate::query::Queries;
use crate::simd::{F32x16, Kernel, Vector};

/// Components with weights of pixels or values.
pub(super) struct Planes {
    shape: [usize; 3],
    precision: Operator,
    sums: Sums,
    components: usize,
    /// How far apart the answers of a component lie.
    apart: usize,
}

/// The working space of a thread.
#[derive(Debug, Default)]
pub(super) struct Space {
    /// `[tile][value or pixel]`.
    residuals: Vec<F32x16>,
    /// `[tile][component]`.
    energies: Vec<F32x16>,
    line: Vec<F32x16>,
}

impl Planes {
    /// `None` where [`Sums`] do not serve.
    pub(super) fn new(filter: &Filter) -> Option<Self> {
        let (shape, precision) = (filter.shape(), filter.precision().clone());
        let (sums, components) = (Sums::new(&precision, shape[2], false)?, filter.count());
        Some(Self { shape, precision, sums, components, apart: shape[1] * shape[2] })
    }

    /// Pieces are whole images.
    pub(super) fn surround() -> Surround {
        Surround { reach: 0, wraps: false, adds_border: false }
    }

    /// Bytes of the working space of a thread.
    pub(super) fn workspace(&self, tiles: usize) -> usize {
        let plane = self.sums.plane_len(self.precision.len(self.shape));
        (tiles * (plane + self.components) + plane) * size_of::<F32x16>()
    }

    pub(super) fn probe(&self, bank: &Bank<'_>, queries: &Queries<'_>, query: usize) -> Probe {
        let z = queries.image(query);
        Probe::for_sums(bank, z.view(), queries.sigma()[query], query, |z, reach| {
            let channels = if self.precision.per_value { 1 } else { self.shape[0] };
            let squares: Vec<f64> = z.iter().map(|z| (z.abs() + reach).powi(2)).collect();
            let farthest = self.sums(&squares).into_iter().fold(0.0, f64::max);
            let values = channels * self.sums.values([self.shape[1], self.shape[2]]);
            Rounding::of_sums(channels + self.sums.chain(), values, z, farthest)
        })
    }

    /// Weighted sums of values of an image for every component.
    pub(super) fn sums(&self, values: &[f64]) -> Vec<f64> {
        let channels = if self.precision.per_value { 1 } else { self.shape[0] };
        let of_place = |p: usize| values[p..].iter().step_by(self.apart).take(channels).sum();
        let of_places: Vec<f64> = (0..self.precision.len(self.shape)).map(of_place).collect();
        let of_component = |k: usize| {
            let mut sum = 0.0;
            self.precision.for_each_weight(k, self.shape, |place, weight| sum += weight * of_places[place]);
            sum
        };
        (0..self.components).map(of_component).collect()
    }

    /// Hands the energies of a probe to `consume`, a row of components at a time.
    pub(super) fn compare<P: Pixel>(
        &self,
        job: &Job<'_, P>,
        probe: &Probe,
        (tiles, penalties): (&[Tile<P>], &TilePenalties),
        space: &mut Space,
        mut consume: impl FnMut(&Block<'_, P>),
    ) {
        let Space { residuals, energies, line } = space;
        let [_, height, width] = self.shape;
        let (terms, places, per_value) = (probe.terms(), self.precision.len(self.shape), self.precision.per_value);
        let (channels, rows) = if per_value { (1, places / width) } else { (self.shape[0], height) };
        let shape = ImageShape { channels, height: rows, width };
        let plane = self.sums.plane_len(places);
        residuals.resize(tiles.len() * plane, F32x16::ZERO);
        for (tile, out) in tiles.iter().zip(exact_chunks_mut(residuals, plane)) {
            let (is_expanded, values, sums) = (terms.form == EXPANDED, terms.values, &self.sums);
            job.isa.run(WriteResiduals { tile, values, is_expanded, shape, sums, out });
        }
        energies.resize(tiles.len() * self.components, F32x16::ZERO);
        let (sums, values, out) = (&self.sums, &residuals[..], &mut energies[..]);
        job.isa.run(Apply { sums, values, out, tiles: tiles.len(), line });
        for (tile, energies) in tiles.iter().zip(exact_chunks_mut(energies, self.components)) {
            mark_missing(tile, energies);
        }
        penalise(energies, self.components, penalties, probe.logit_scale);
        for first in (0..self.components).step_by(width) {
            let part = first..self.components.min(first + width);
            let (apart, logit_scale) = (self.apart, probe.logit_scale as f32);
            consume(&Block { tiles, energies, part, first, place: first, apart, logit_scale });
        }
    }
}

/// The residuals of a tile, of every value or summed over channels.
struct WriteResiduals<'a, P: Pixel> {
    tile: &'a Tile<P>,
    /// z, or `-2 z`.
    values: &'a [f32],
    is_expanded: bool,
    /// Of the image, whose values are all rows of a single channel if each has a residual of its own.
    shape: ImageShape,
    sums: &'a Sums,
    out: &'a mut [F32x16],
}

impl<P: Pixel> Kernel for WriteResiduals<'_, P> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        match (self.is_expanded, self.shape.channels) {
            (true, 1) => self.write::<V, FACTORED, 1>(),
            (true, 3) => self.write::<V, FACTORED, 3>(),
            (true, _) => self.write::<V, FACTORED, 0>(),
            (false, 1) => self.write::<V, DIRECT, 1>(),
            (false, 3) => self.write::<V, DIRECT, 3>(),
            (false, _) => self.write::<V, DIRECT, 0>(),
        }
    }
}

impl<P: Pixel> WriteResiduals<'_, P> {
    #[inline(always)]
    fn write<V: Vector, const FORM: u8, const CHANNELS: usize>(self) {
        let Self { tile, values, shape, sums, out, .. } = self;
        for y in 0..shape.height {
            let (residuals, first) = (Residuals::<P, FORM, CHANNELS>::of_row(tile, values, shape, y), y * shape.width);
            if !sums.is_spread() {
                residuals.write::<V>(&mut out[sums.place(first)..]);
                continue;
            }
            for x in 0..shape.width {
                residuals.at::<V>(x).store(&mut out[spread(first + x)]);
            }
        }
    }
}
