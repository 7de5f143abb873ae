//! `Directions`: what derivatives of a composite are taken along, whatever device runs the passes.

use std::ops::Range;

use ndarray::{Array2, Array4, ArrayView4, ArrayView5, ArrayViewMut3, ArrayViewMut4, Axis, s};

use crate::bank::Bank;
use crate::components::Components;
use crate::error::{Error, Result};
use crate::found::{QueryDerivative, TiltedSums, merged};
use crate::monitor::Monitor;

/// Most directions for which a pass is made.
const MAX_DIRECTIONS: usize = 8;

/// Directions in parts of as many as a pass is made for; a single empty part if there are none.
pub(crate) fn parts_of(directions: &ArrayView5<'_, f64>) -> Vec<Range<usize>> {
    let count = directions.len_of(Axis(0));
    let starts = (0..count).step_by(MAX_DIRECTIONS);
    starts.map(|start| start..count.min(start + MAX_DIRECTIONS)).chain((count == 0).then_some(0..0)).collect()
}

/// The monitor of part `i` of `parts` of the same work.
pub(crate) fn part_of_monitor<'m>(
    monitor: &'m mut Monitor<'_>,
    i: u64,
    parts: u64,
) -> impl FnMut(u64, u64) -> Result<()> + 'm {
    move |done, total| monitor(done + i * total, parts * total)
}

/// Directions as the passes take them, and what makes derivatives of what they find.
pub(crate) struct Directions {
    /// `[direction, query, channel, pixel]`, of magnitude up to one.
    values: Array4<f64>,
    /// Per direction and query what they were divided by.
    scales: Array2<f64>,
    /// Per query what sums are divided by besides the number of windows at a pixel.
    divisors: Vec<f64>,
    cover: Vec<u32>,
    width: usize,
    transposed: bool,
}

impl Directions {
    /// Of queries at noise levels `sigma`; checks that they have the right shape and are finite.
    pub(crate) fn new(
        bank: &Bank<'_>,
        components: &Components,
        sigma: &[f64],
        directions: ArrayView5<'_, f64>,
        transposed: bool,
    ) -> Result<Self> {
        let [channels, height, width] = bank.image_shape();
        let (count, queries, ..) = directions.dim();
        if directions.shape()[1..] != [sigma.len(), channels, height, width] {
            let expected = format!("[directions, {}, {channels}, {height}, {width}]", sigma.len());
            return Err(Error::Shape { what: "v", found: directions.shape().to_vec(), expected });
        }
        let cover = components.cover();
        let mut values = Array4::zeros((count, queries, channels, height * width));
        let mut scales = Array2::zeros((count, queries));
        for ((i, query), scale) in scales.indexed_iter_mut() {
            let direction = directions.slice(s![i, query, .., .., ..]);
            if let Some(((c, y, x), &value)) = direction.indexed_iter().find(|(_, value)| !value.is_finite()) {
                let index = vec![i, query, c, y, x];
                return Err(Error::Pixel { what: "v", value, index, limit: f64::MAX });
            }
            let largest = direction.iter().fold(0.0_f64, |largest, value| largest.max(value.abs()));
            *scale = if largest > 0.0 { largest } else { 1.0 };
            for ((c, y, x), value) in direction.indexed_iter() {
                let p = y * width + x;
                let share = if transposed { f64::from(cover[p]) } else { 1.0 };
                values[[i, query, c, p]] = value / *scale / share;
            }
        }
        let divisors = sigma.iter().map(|sigma| (sigma * bank.unit()).powi(2)).collect();
        Ok(Self { values, scales, divisors, cover, width, transposed })
    }

    /// `[direction, query, channel, pixel]`.
    pub(crate) fn values(&self) -> ArrayView4<'_, f64> {
        self.values.view()
    }

    /// Writes the derivatives of a query `[direction, channel, row, column]`.
    pub(crate) fn finish(&self, query: usize, found: &QueryDerivative, mut out: ArrayViewMut4<'_, f32>) {
        for (i, sums) in found.directions.iter().enumerate() {
            let factor = self.scales[[i, query]] / self.divisors[query];
            let mut out = out.index_axis_mut(Axis(0), i);
            for (((_, y, x), sum), value) in merged(sums).indexed_iter().zip(&mut out) {
                let share = if self.transposed { 1.0 } else { f64::from(self.cover[y * self.width + x]) };
                *value = (sum * factor / share) as f32;
            }
        }
    }

    /// The same for one of several ranks, whose residuals are those of all its images.
    pub(crate) fn finish_rank(
        &self,
        bank: &Bank<'_>,
        query: usize,
        tilted: &TiltedSums,
        mut along: ArrayViewMut4<'_, f64>,
        mut residuals: ArrayViewMut3<'_, f64>,
    ) {
        let (unit, centre) = (bank.unit(), bank.range().centre);
        for (i, (sums, of_pixels)) in tilted.found.directions.iter().zip(&tilted.residuals).enumerate() {
            let factor = self.scales[[i, query]] / self.divisors[query];
            let share = |p: usize| if self.transposed { 1.0 } else { f64::from(self.cover[p]) };
            let (mut along, mut residuals) = (along.index_axis_mut(Axis(0), i), residuals.index_axis_mut(Axis(0), i));
            // Sums are of stored pixels, `unit` times those of the images, which residuals are multiplied with.
            for (p, (residual, out)) in of_pixels.iter().zip(&mut residuals).enumerate() {
                *out = residual * factor * unit / share(p);
            }
            for (((_, y, x), sum), out) in merged(sums).indexed_iter().zip(&mut along) {
                *out = sum * factor / share(y * self.width + x) + centre * residuals[[y, x]];
            }
        }
    }
}
