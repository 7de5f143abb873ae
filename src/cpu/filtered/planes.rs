//! Energies as weighted sums over the residuals of whole images, for weights of any other kind.

use super::pass::Block;
use super::pieces::Surround;
use super::sums::{Apply, Sums};
use crate::bank::Bank;
use crate::cpu::chunks::exact_chunks_mut;
use crate::cpu::dense::arithmetic::TilePenalties;
use crate::cpu::dense::energies::mark_missing;
use crate::cpu::dense::residuals::EXPANDED;
use crate::cpu::dense::single::penalise;
use crate::cpu::job::Job;
use crate::cpu::precision::Rounding;
use crate::cpu::probe::Probe;
use crate::cpu::tile::{Pixel, Tile};
use crate::filter::{Filter, Operator};
use crate::query::Queries;
use crate::simd::{F32x16, Kernel, LANES, Vector};

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
    across: Vec<F32x16>,
}

impl Planes {
    /// `None` where [`Sums`] do not serve.
    pub(super) fn new(filter: &Filter) -> Option<Self> {
        let (shape, precision) = (filter.shape(), filter.precision().clone());
        let (sums, components) = (Sums::new(&precision, false)?, filter.count());
        Some(Self { shape, precision, sums, components, apart: shape[1] * shape[2] })
    }

    /// Pieces are whole images.
    pub(super) fn surround() -> Surround {
        Surround { reach: 0, wraps: false, adds_border: false }
    }

    /// Bytes of the working space of a thread.
    pub(super) fn workspace(&self, tiles: usize) -> usize {
        let across = 4 * self.apart.max(LANES);
        tiles * (self.precision.len(self.shape) + self.components + across) * size_of::<F32x16>()
    }

    pub(super) fn probe(&self, bank: &Bank<'_>, queries: &Queries<'_>, query: usize) -> Probe {
        let z = queries.image(query);
        Probe::for_sums(bank, z.view(), queries.sigma()[query], query, |z, reach| {
            let channels = if self.precision.per_value { 1 } else { self.shape[0] };
            let square = |p: usize| -> f64 {
                z[p..].iter().step_by(self.apart).take(channels).map(|z| (z.abs() + reach).powi(2)).sum()
            };
            let squares: Vec<f64> = (0..self.precision.len(self.shape)).map(square).collect();
            let farthest = (0..self.components).map(|k| {
                let mut sum = 0.0;
                self.precision.for_each_weight(k, self.shape, |place, weight| sum += weight * squares[place]);
                sum
            });
            let values = channels * self.sums.values([self.shape[1], self.shape[2]]);
            Rounding::of_sums(channels + self.sums.chain(), values, z, farthest.fold(0.0, f64::max))
        })
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
        let Space { residuals, energies, across } = space;
        let [_, height, width] = self.shape;
        let (terms, places, per_value) = (probe.terms(), self.precision.len(self.shape), self.precision.per_value);
        let plane = self.sums.plane_len(places);
        residuals.resize(tiles.len() * plane, F32x16::ZERO);
        for (tile, out) in tiles.iter().zip(exact_chunks_mut(residuals, plane)) {
            let (is_expanded, values, sums) = (terms.form == EXPANDED, terms.values, &self.sums);
            job.isa.run(Residuals { tile, values, is_expanded, per_value, sums, places, out });
        }
        energies.resize(tiles.len() * self.components, F32x16::ZERO);
        let (sums, size, values, out) = (&self.sums, [height, width], &residuals[..], &mut energies[..]);
        job.isa.run(Apply { sums, size, values, out, tiles: tiles.len(), across });
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

/// The residuals of a tile, of every value or summed over channels: `(a - z)^2`, or, in the expanded form, `a (a - 2 z)`.
struct Residuals<'a, P: Pixel> {
    tile: &'a Tile<P>,
    /// z, or `-2 z`.
    values: &'a [f32],
    is_expanded: bool,
    per_value: bool,
    sums: &'a Sums,
    /// How many there are.
    places: usize,
    out: &'a mut [F32x16],
}

impl<P: Pixel> Kernel for Residuals<'_, P> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { tile, values, is_expanded, per_value, sums, places, out } = self;
        let channels = if per_value { 1 } else { tile.channels };
        for p in 0..places {
            let (a, b) = factors::<V, P>(tile, values, is_expanded, p);
            let mut sum = a.mul(b);
            for c in 1..channels {
                let (a, b) = factors::<V, P>(tile, values, is_expanded, c * places + p);
                sum = a.mul_add(b, sum);
            }
            sum.store(&mut out[sums.place(p)]);
        }
    }
}

/// The two factors of a residual.
#[inline(always)]
fn factors<V: Vector, P: Pixel>(tile: &Tile<P>, values: &[f32], is_expanded: bool, i: usize) -> (V, V) {
    let (a, z) = (P::centred::<V>(&tile.pixels[i]), V::splat(values[i]));
    if is_expanded { (a, a.add(z)) } else { (a.sub(z), a.sub(z)) }
}
