//! What posteriors say about images: the heaviest ones of every component, and sums of weights per image.

use std::ops::Range;

use super::call::{Call, Pass, Tile};
use super::evidence::Evidence;
use crate::error::Result;
use crate::heaviest::{ProbeStatistics, Wanted};
use crate::monitor::Monitor;
use crate::simd::{LANES, VectorF64};

/// The heaviest images of every component, and sums of weights per image.
struct Statistics<'a> {
    evidence: &'a [Evidence],
    wanted: Wanted,
}

impl Pass for Statistics<'_> {
    type Partial = ProbeStatistics;
    type Total = ProbeStatistics;

    fn start(&self, call: &Call<'_>, _query: usize, shard: &Range<usize>) -> ProbeStatistics {
        let mut found = ProbeStatistics::new(call.filter.count(), shard.len(), self.wanted);
        found.first = shard.start;
        found
    }

    #[inline(always)]
    fn add<V: VectorF64>(&self, tile: &mut Tile<'_>, found: &mut ProbeStatistics) {
        if !tile.weights::<V>(&self.evidence[tile.query]) {
            return;
        }
        let least = (-tile.call.cutoff()).exp2();
        for (k, weights) in tile.planes.components.iter().enumerate() {
            for lane in 0..LANES {
                let weight = weights.0[lane];
                if weight > least {
                    if self.wanted.top > 0 {
                        found.heaviest.insert(k, weight.log2(), tile.first + lane, tile.view as u32);
                    }
                    if self.wanted.attribution {
                        found.attribution[tile.first - found.first + lane] += weight;
                    }
                }
            }
        }
    }

    fn merge(&self, total: &mut ProbeStatistics, found: ProbeStatistics) {
        total.merge(&found);
    }
}

/// What the posteriors of every query say about images.
pub(crate) fn statistics(
    call: &Call<'_>,
    evidence: &[Evidence],
    wanted: Wanted,
    monitor: &mut Monitor<'_>,
) -> Result<Vec<ProbeStatistics>> {
    let count = call.filter.count();
    let mut found: Vec<ProbeStatistics> =
        evidence.iter().map(|_| ProbeStatistics::new(count, call.sources.len, wanted)).collect();
    let of_query = count * (8 + 32 * wanted.top) + if wanted.attribution { 8 * call.sources.len } else { 0 };
    if wanted.top > 0 || wanted.attribution {
        call.run(&Statistics { evidence, wanted }, &mut found, of_query, (0, 1), monitor)?;
    }
    for (found, evidence) in found.iter_mut().zip(evidence) {
        found.entropy.copy_from_slice(&evidence.entropies);
    }
    Ok(found)
}
