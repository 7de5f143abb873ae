//! Variances of values under the posteriors: per value the mean over the components that answer for it, and per component that
//! of its middle pixel.

use std::ops::Range;

use super::call::{Call, Pass, Tile};
use super::evidence::Evidence;
use crate::error::Result;
use crate::filter::Filter;
use crate::monitor::Monitor;
use crate::simd::VectorF64;

/// First and second moments of values, less z, under every component that answers for them.
struct Variance<'a> {
    evidence: &'a [Evidence],
    /// See [`entries`].
    entries: &'a [(usize, usize, f64)],
}

impl Pass for Variance<'_> {
    type Partial = Vec<[f64; 2]>;
    type Total = Vec<[f64; 2]>;

    fn start(&self, _call: &Call<'_>, _query: usize, _shard: &Range<usize>) -> Vec<[f64; 2]> {
        vec![[0.0; 2]; self.entries.len()]
    }

    #[inline(always)]
    fn add<V: VectorF64>(&self, tile: &mut Tile<'_>, moments: &mut Vec<[f64; 2]>) {
        if !tile.weights::<V>(&self.evidence[tile.query]) {
            return;
        }
        let query = &tile.call.queries[tile.query];
        for (&(k, value, _), [first, second]) in self.entries.iter().zip(moments) {
            let above = V::load(&tile.pixels[value]).sub(V::splat(query.near(value)));
            let weighted = V::load(&tile.planes.components[k]).mul(above);
            *first += weighted.sum();
            *second += weighted.mul(above).sum();
        }
    }

    fn merge(&self, total: &mut Vec<[f64; 2]>, moments: Vec<[f64; 2]>) {
        for (total, moment) in total.iter_mut().zip(moments) {
            total[0] += moment[0];
            total[1] += moment[1];
        }
    }
}

/// Per query the first and second moments of values less z, `[entry]` as [`entries`] has them.
pub(crate) fn moments(call: &Call<'_>, evidence: &[Evidence], monitor: &mut Monitor<'_>) -> Result<Vec<Vec<[f64; 2]>>> {
    let entries = entries(call.filter);
    let mut moments = vec![vec![[0.0; 2]; entries.len()]; evidence.len()];
    call.run(&Variance { evidence, entries: &entries }, &mut moments, 16 * entries.len(), (0, 1), monitor)?;
    Ok(moments)
}

/// `(component, value, response weight)` of every value that a component answers for, and, with the weight zero, of its middle
/// pixel.
pub(crate) fn entries(filter: &Filter) -> Vec<(usize, usize, f64)> {
    let [channels, height, width] = filter.shape();
    let (plane, response) = (height * width, filter.response());
    let mut entries = Vec::new();
    for k in 0..filter.count() {
        response.for_each_weight(k, filter.shape(), |place, weight| {
            let repeats = if response.per_value { 1 } else { channels };
            entries.extend((0..repeats).map(|c| (k, c * plane + place, weight)));
        });
        // The pixel in the middle, in all channels.
        let middle = filter.middle(k) % plane;
        entries.extend((0..channels).map(|c| (k, c * plane + middle, 0.0)));
    }
    entries
}

/// The variances of values of a query, `[channel][row][column]`, and those of the middle pixels of components, `[component]
/// [channel]`, in squares of `unit`, of which the units of the images are made.
pub(crate) fn variances(filter: &Filter, unit: f64, moments: &[[f64; 2]]) -> (Vec<f64>, Vec<f64>) {
    let [channels, height, width] = filter.shape();
    let mut values = vec![0.0; channels * height * width];
    let mut middles = Vec::with_capacity(filter.count() * channels);
    for ((_, value, weight), [first, second]) in entries(filter).into_iter().zip(moments) {
        let variance = (second - first * first).max(0.0) / unit.powi(2);
        if weight > 0.0 {
            values[value] += weight * variance / filter.cover()[value];
        } else {
            middles.push(variance);
        }
    }
    (values, middles)
}
