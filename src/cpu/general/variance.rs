//! Variances of values under the posteriors: per value the mean over the components that answer for it, and per component that
//! of its middle pixel.

use std::ops::Range;

use super::call::{Call, Pass, Tile};
use super::evidence::Evidence;
use crate::error::Result;
use crate::monitor::Monitor;
use crate::simd::VectorF64;

/// First and second moments of values, less z, under every component that answers for them.
struct Variance<'a> {
    evidence: &'a [Evidence],
    /// `(component, value, response weight)` of every value that a component answers for, and, with the weight zero, of its
    /// middle pixel.
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

/// Per query the variances of values, `[channel][row][column]`, and those of the middle pixels of components, `[component]
/// [channel]`, in squares of the units of the images.
pub(crate) fn variances(
    call: &Call<'_>,
    evidence: &[Evidence],
    monitor: &mut Monitor<'_>,
) -> Result<Vec<(Vec<f64>, Vec<f64>)>> {
    let filter = call.filter;
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
    let mut moments = vec![vec![[0.0; 2]; entries.len()]; evidence.len()];
    call.run(&Variance { evidence, entries: &entries }, &mut moments, 16 * entries.len(), (0, 1), monitor)?;
    let unit = call.bank.unit().powi(2);
    let of_query = |moments: Vec<[f64; 2]>| {
        let (mut values, mut middles) = (vec![0.0; call.len()], Vec::with_capacity(filter.count() * channels));
        for (&(_, value, weight), [first, second]) in entries.iter().zip(moments) {
            let variance = (second - first * first).max(0.0) / unit;
            if weight > 0.0 {
                values[value] += weight * variance / filter.cover()[value];
            } else {
                middles.push(variance);
            }
        }
        (values, middles)
    };
    Ok(moments.into_iter().map(of_query).collect())
}
