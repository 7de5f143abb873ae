//! Composites, given the evidence.

use std::ops::Range;

use super::call::{Call, Pass, Tile};
use super::evidence::Evidence;
use crate::error::Result;
use crate::monitor::Monitor;
use crate::simd::VectorF64;

/// Weighted sums of centred pixels over all components, `[channel][row][column]`.
struct Composite<'a> {
    evidence: &'a [Evidence],
}

impl Pass for Composite<'_> {
    type Partial = Vec<f64>;
    type Total = Vec<f64>;

    fn start(&self, call: &Call<'_>, _query: usize, _shard: &Range<usize>) -> Vec<f64> {
        vec![0.0; call.len()]
    }

    #[inline(always)]
    fn add<V: VectorF64>(&self, tile: &mut Tile<'_>, sums: &mut Vec<f64>) {
        if tile.weights::<V>(&self.evidence[tile.query]) {
            tile.add_composite::<V>(tile.call.filter.response(), false, sums, false);
        }
    }

    fn merge(&self, total: &mut Vec<f64>, sums: Vec<f64>) {
        add_all(total, &sums);
    }
}

/// Adds numbers one by one.
pub(super) fn add_all(total: &mut [f64], values: &[f64]) {
    total.iter_mut().zip(values).for_each(|(total, value)| *total += value);
}

/// Per query the sums of weighted centred pixels in the units of the images, divided by the cover, `[channel][row][column]`: the
/// composites, less the centre.
pub(crate) fn composites(
    call: &Call<'_>,
    evidence: &[Evidence],
    part: (u64, u64),
    monitor: &mut Monitor<'_>,
) -> Result<Vec<Vec<f64>>> {
    let mut sums = vec![vec![0.0; call.len()]; call.queries.len()];
    call.run(&Composite { evidence }, &mut sums, 8 * call.len(), part, monitor)?;
    let (unit, cover) = (call.bank.unit(), call.filter.cover());
    for sums in &mut sums {
        sums.iter_mut().zip(cover).for_each(|(sum, cover)| *sum /= cover * unit);
    }
    Ok(sums)
}
