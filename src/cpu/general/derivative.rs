//! Derivatives of composites along directions.

use std::ops::Range;

use super::call::{Call, Pass, Tile};
use super::composite::add_all;
use super::evidence::Evidence;
use crate::error::Result;
use crate::filter::Operator;
use crate::monitor::Monitor;
use crate::simd::VectorF64;

/// Directions of the queries of a call, and whether they go through the transpose.
pub(crate) struct Along<'a> {
    /// `[query][direction][channel][row][column]`, for the transpose divided by the cover.
    pub(crate) values: &'a [Vec<Vec<f64>>],
    pub(crate) transposed: bool,
}

/// The mean products of images and directions, `[direction][component]`.
struct Means<'a> {
    evidence: &'a [Evidence],
    along: &'a Along<'a>,
}

impl Pass for Means<'_> {
    type Partial = Vec<Vec<f64>>;
    type Total = Vec<Vec<f64>>;

    fn start(&self, call: &Call<'_>, query: usize, _shard: &Range<usize>) -> Vec<Vec<f64>> {
        vec![vec![0.0; call.filter.count()]; self.along.values[query].len()]
    }

    #[inline(always)]
    fn add<V: VectorF64>(&self, tile: &mut Tile<'_>, means: &mut Vec<Vec<f64>>) {
        if !tile.weights::<V>(&self.evidence[tile.query]) {
            return;
        }
        let (from, _) = self.along.operators(tile.call);
        for (direction, means) in self.along.values[tile.query].iter().zip(means) {
            tile.products::<V>(from, direction);
            let pairs = tile.planes.components.iter().zip(&tile.planes.products);
            for (mean, (weights, products)) in means.iter_mut().zip(pairs) {
                *mean += V::load(weights).mul(V::load(products)).sum();
            }
        }
    }

    fn merge(&self, total: &mut Vec<Vec<f64>>, means: Vec<Vec<f64>>) {
        total.iter_mut().zip(means).for_each(|(total, means)| add_all(total, &means));
    }
}

impl Along<'_> {
    /// How many directions a query has.
    fn count(&self) -> usize {
        self.values.iter().map(Vec::len).max().unwrap_or(0)
    }

    /// So many zeros for every direction, `[query][direction]`.
    fn zeros(&self, len: usize) -> Vec<Vec<Vec<f64>>> {
        self.values.iter().map(|of_query| vec![vec![0.0; len]; of_query.len()]).collect()
    }

    /// What forms products, and what spreads them.
    fn operators<'f>(&self, call: &Call<'f>) -> (&'f Operator, &'f Operator) {
        let (precision, response) = (call.filter.precision(), call.filter.response());
        if self.transposed { (response, precision) } else { (precision, response) }
    }
}

/// Sums of pixels under tilted weights, `[direction][channel][row][column]`.
struct Derivative<'a> {
    evidence: &'a [Evidence],
    along: &'a Along<'a>,
    means: &'a [Vec<Vec<f64>>],
}

impl Pass for Derivative<'_> {
    type Partial = Vec<Vec<f64>>;
    type Total = Vec<Vec<f64>>;

    fn start(&self, call: &Call<'_>, query: usize, _shard: &Range<usize>) -> Vec<Vec<f64>> {
        vec![vec![0.0; call.len()]; self.along.values[query].len()]
    }

    #[inline(always)]
    fn add<V: VectorF64>(&self, tile: &mut Tile<'_>, sums: &mut Vec<Vec<f64>>) {
        if !tile.weights::<V>(&self.evidence[tile.query]) {
            return;
        }
        let (from, to) = self.along.operators(tile.call);
        let (directions, means) = (&self.along.values[tile.query], &self.means[tile.query]);
        for ((direction, means), sums) in directions.iter().zip(means).zip(sums) {
            tile.products::<V>(from, direction);
            tile.tilt::<V>(means);
            tile.add_composite::<V>(to, true, sums, true);
        }
    }

    fn merge(&self, total: &mut Vec<Vec<f64>>, sums: Vec<Vec<f64>>) {
        total.iter_mut().zip(sums).for_each(|(total, sums)| add_all(total, &sums));
    }
}

/// The derivatives of composites, `[query][direction][channel][row][column]`.
pub(crate) fn derivatives(
    call: &Call<'_>,
    evidence: &[Evidence],
    along: &Along<'_>,
    (done, passes): (u64, u64),
    monitor: &mut Monitor<'_>,
) -> Result<Vec<Vec<Vec<f64>>>> {
    let means = mean_products(call, evidence, along, (done, passes), monitor)?;
    given_means(call, evidence, along, &means, (done + 1, passes), monitor)
}

/// The mean products of images less z and directions, `[query][direction][component]`.
pub(crate) fn mean_products(
    call: &Call<'_>,
    evidence: &[Evidence],
    along: &Along<'_>,
    part: (u64, u64),
    monitor: &mut Monitor<'_>,
) -> Result<Vec<Vec<Vec<f64>>>> {
    let mut means = along.zeros(call.filter.count());
    let of_query = 8 * along.count() * call.filter.count();
    call.run(&Means { evidence, along }, &mut means, of_query, part, monitor)?;
    Ok(means)
}

/// The derivatives of composites, `[query][direction][channel][row][column]`, with means that are known.
pub(crate) fn given_means(
    call: &Call<'_>,
    evidence: &[Evidence],
    along: &Along<'_>,
    means: &[Vec<Vec<f64>>],
    part: (u64, u64),
    monitor: &mut Monitor<'_>,
) -> Result<Vec<Vec<Vec<f64>>>> {
    let mut sums = along.zeros(call.len());
    let pass = Derivative { evidence, along, means };
    call.run(&pass, &mut sums, 8 * along.count() * call.len(), part, monitor)?;
    // 1 / sigma^2 in stored units.
    let factors = call.queries.iter().map(|query| 2.0 * query.logit_scale / std::f64::consts::LOG2_E);
    for (of_query, factor) in sums.iter_mut().zip(factors) {
        for (i, value) in of_query.iter_mut().flat_map(|direction| direction.iter_mut().enumerate()) {
            *value *= factor / if along.transposed { 1.0 } else { call.filter.cover()[i] };
        }
    }
    Ok(sums)
}
